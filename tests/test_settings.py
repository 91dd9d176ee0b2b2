from dataclasses import replace
from pathlib import Path

import pytest

from jobs.launch import PROJECT, AuscultError
from jobs.settings import OperatingPoint, ScanSettings, read_settings
from models.training import TrainingSettings, settings_from


def test_the_shipped_file_documents_the_defaults():
    assert read_settings(PROJECT / "conf" / "scan.yaml") == ScanSettings()
    assert read_settings(None) == ScanSettings()


def test_a_default_point_counts_for_what_the_file_does_not_name(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "operating_points:\n  default: {threshold: 0.5, min_detected_s: 1, window_s: 2}\n  hiss: {threshold: 0.7}\n"
    )
    settings, shipped = read_settings(path), ScanSettings()
    assert settings.operating_point("click") == settings.operating_point("wobble") == OperatingPoint(0.5, 1, 2)
    assert settings.operating_point("hum") == OperatingPoint(0.5, 1, 2, shipped.operating_point("hum").ignored_channels)
    assert settings.operating_point("hiss").threshold == 0.7
    assert settings.operating_point("click", "clicks") == shipped.operating_point("click", "clicks")
    path.write_text("operating_points: {hiss: {threshold: 0.7}}\n")
    assert read_settings(path).operating_point("hum") == shipped.operating_point("hum")


def test_what_a_point_leaves_out_stays_as_it_is(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "operating_points:\n  hum: {threshold: 0.5}\n  mine/hum: {window_s: 30}\n  clicks/click: {window_s: 5}\n"
        "  wobble: {threshold: 0.7, ignored_channels: [lfe]}\n"
    )
    settings, shipped = read_settings(path), ScanSettings()
    assert settings.operating_point("hum") == replace(shipped.operating_point("hum"), threshold=0.5)
    assert settings.operating_point("hum", "mine") == replace(settings.operating_point("hum"), window_s=30.0)
    assert settings.operating_point("click", "clicks") == OperatingPoint(0.98, 0.002, 5.0)
    assert settings.operating_point("wobble") == OperatingPoint(0.7, 20.0, 80.0, ("LFE",))
    path.write_text(
        "operating_points:\n  hum: {threshold: 0.6}\n  default: {min_detected_s: 3, ignored_channels: [FC]}\n"
    )
    assert read_settings(path).operating_point("hum") == OperatingPoint(0.6, 3.0, 80.0, ("FC",))
    assert read_settings(path).operating_point("hiss") == OperatingPoint(0.9, 3.0, 80.0, ("FC",))
    assert read_settings(path).operating_point("wobble") == OperatingPoint(0.9, 3.0, 80.0, ("FC",))


def test_the_training_settings_are_valid():
    import yaml

    assert settings_from(yaml.safe_load((PROJECT / "conf" / "train.yaml").read_text())).steps > 100
    with pytest.raises(ValueError, match="unknown training settings"):
        settings_from({"stepps": 1})
    assert settings_from({}).steps == TrainingSettings().steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spann_s: 3", "unknown key spann_s"),
        ("span_s: soon", "span_s: expected int, found 'soon'"),
        ("span_s: 0", "span_s: expected at least 1"),
        ("span_s: true", "span_s: expected int"),
        ("- a", "expected keys and values"),
        ("a: [", "not YAML"),
        ("operating_points: {hum: {treshold: 1}}", "unknown key operating_points.hum.treshold"),
        ("operating_points: {hum: {threshold: 3}}", "expected 0 to 1, found 3.0"),
        ("operating_points: {hum: {min_detected_s: 9, window_s: 3}}", "more cannot fit into the window"),
        ("operating_points: 3", "must map defects"),
        (
            "cpu_runtime: fast",
            "cpu_runtime: expected one of torch, openvino, openvino-bf16, openvino-int8, found 'fast'",
        ),
        ("cpu_runtime: 3", "cpu_runtime: expected str, found 3"),
        ("ignored_suffixes: [txt]", "expected suffixes with their dot, found 'txt'; write '.txt'"),
        ("max_rejected_share: 5", "max_rejected_share: expected 0 to 1, found 5"),
        ("max_crashed_titles: -1", "max_crashed_titles: expected 0 or more, found -1"),
        ("decode_timeout_s: .nan", "decode_timeout_s: expected a number, found nan"),
        ("operating_points: {hum: {threshold: .nan}}", "operating_points.hum.threshold: expected a number, found nan"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(AuscultError) as caught:
        read_settings(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(AuscultError, match=r"nowhere\.yaml: cannot be read"):
        read_settings(Path("nowhere.yaml"))


@pytest.mark.parametrize("path", sorted((PROJECT / "conf").glob("train*.yaml")), ids=lambda path: path.name)
def test_training_settings_build_their_network(path):
    import yaml

    from models import checkpoint

    settings = settings_from(yaml.safe_load(path.read_text()))
    settings.check_shares(1)
    network = checkpoint.build(settings.architecture, settings.network)
    assert settings.sample_rate_hz == network.config.sample_rate_hz
    lengths = {round(phase.segment_s * settings.sample_rate_hz) for phase in settings.phases}
    assert round(network.config.segment_s * network.config.sample_rate_hz) in lengths
