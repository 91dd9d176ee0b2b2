"""What runs on Spark executors: safe decoding, the scan UDF, the schemas. No SparkSession here."""
