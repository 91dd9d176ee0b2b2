"""Reports by the EBU's schema, read by a reader of XML Schema that has nothing in common with their writer."""

import hashlib
import re
from xml.etree import ElementTree

import pytest
from handovers import AWKWARD, NOW, PAL, ROWS, SCHEMAS, VERDICTS, ebu_schema, judged, read_report, row
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import handover, handover_ebu_qc, review
from jobs.handover import Handover
from jobs.handover_ebu_qc import RELEASES, report_xml
from jobs.launch import PROJECT
from jobs.timecode import timeline


@pytest.fixture(scope="module")
def schema():
    return ebu_schema()


def test_the_schemas_are_the_unchanged_release():
    for digest, name in re.findall(r"([0-9a-f]{64})  (\S+)", (SCHEMAS / "README.md").read_text()):
        assert hashlib.sha256((SCHEMAS / name).read_bytes()).hexdigest() == digest


def test_the_schema_reader_sees_damage(schema):
    text = report_xml("film.mkv", ROWS[:4], NOW, "2026-04")
    for old, new in [
        ("<ExecutionStatus>complete<", "<ExecutionStatus>done<"),
        ("<Confidence>0.9730<", "<Confidence>1.5<"),
        ("<Confidence>0.9730<", "<Confidence>9.7E-1<"),
        ("<Revision>2<", "<Revision>-2<"),
        ("<ReportId>urn:uuid:", "<ReportId>urn:"),
        ("<ItemDefinitions />", ""),
        ("<Scopes />", "<Scopes /><Scopes />"),
        ("<EditRate>48000/1<", "<EditRate>48000<"),
        ("<EBUQCID>auscult-hum<", "<EBUQCID>auscult_hum<"),
        ("+00:00<", " UTC<"),
        ("<UsedAs>", "words<UsedAs>"),
    ]:
        assert old in text
        assert schema.errors(ElementTree.fromstring(text.replace(old, new, 1))), (old, new)


@pytest.mark.parametrize("place", [None, PAL, timeline("29.97df", "10:00:00;00")])
def test_reports_follow_the_schema(schema, place):
    shared = Handover(NOW.created_at, NOW.tool_version, place)
    text = report_xml("film.mkv", ROWS[:5], shared, "2026-04")
    assert schema.errors(ElementTree.fromstring(text)) == []
    # What both releases have in common: only the namespace differs.
    assert report_xml("film.mkv", ROWS[:5], shared) == text.replace('tag:qc.ebu.ch,2026-04"', 'tag:qc.ebu.ch,2026-01"')


def test_a_report_tells_reviewed_from_automatic():
    root, names = read_report(report_xml("film.mkv", ROWS[:5], NOW))
    assert root.tag == "{tag:qc.ebu.ch,2026-01}Report"
    assert root.findtext("q:ToolInformation/q:ToolName", namespaces=names) == "Auscult"
    items = root.findall("q:Profile/q:Items/q:Item", names)
    results = root.findall("q:ItemResults/q:ItemResult", names)
    same = ("EBUQCID", "EBUQCName", "EBUQCVersion", "InstanceId")
    assert [[item.findtext(f"q:{tag}", namespaces=names) for tag in same] for item in items] == [
        [result.findtext(f"q:{tag}", namespaces=names) for tag in same] for result in results
    ]
    assert len({item.findtext("q:InstanceId", namespaces=names) for item in items}) == len(items) == 3
    found = [
        (
            item.findtext("q:Track", namespaces=names),
            *(result.findtext(f"q:{tag}", namespaces=names) for tag in ("EBUQCName", "Revision", "DetectionMethod")),
            len(result.findall("q:Outputs/q:Output", names)),
        )
        for item, result in zip(items, results, strict=True)
    ]
    assert found == [
        ("0", "hum", "1", "automatic", 1),
        ("0", "hum", "2", "assisted", 3),
        ("1", "click", "1", "automatic", 1),
    ]
    [genuine, intended, false] = results[1].findall("q:Outputs/q:Output", names)
    assert [output.findtext("q:Severity", namespaces=names) for output in (genuine, intended, false)] == ["2", "0", "0"]
    assert results[1].findtext("q:MaxSeverity", namespaces=names) == "2"
    assert genuine.findtext("q:Annotation/q:Text", namespaces=names).startswith(
        "verdict: genuine; cause: other; note: ="
    )
    assert genuine.findtext("q:Annotation/q:Editor/q:Name", namespaces=names) == "Ana"
    assert genuine.findtext("q:Annotation/q:Timestamp", namespaces=names) == "2026-03-01T10:00:00.500000Z"
    assert genuine.findtext("q:Confidence", namespaces=names) == "0.9730"
    automatic = results[0].find("q:Outputs/q:Output", names)
    assert automatic.find("q:Annotation", names) is None


def test_locators_count_edit_units():
    def locators(text):
        root, names = read_report(text)
        ends = [
            (int(node.findtext("q:Start", namespaces=names)), int(node.findtext("q:End", namespaces=names)))
            for node in root.iterfind(".//q:Locator", names)
        ]
        return root.findtext("q:ExtensionProperties/*/t:EditRate", namespaces=names), ends

    assert locators(report_xml("a", [row()], NOW)) == ("48000/1", [(577_920, 2_040_000)])
    at_pal = Handover(NOW.created_at, NOW.tool_version, PAL)
    assert locators(report_xml("a", [row()], at_pal)) == ("25/1", [(301, 1063)])


def test_a_track_that_was_not_scored_whole_is_no_complete_result():
    text = report_xml("a", [row(status="partial", error="half of it is damaged"), row(track=1)], NOW)
    root, names = read_report(text)
    assert root.findtext("q:ExecutionStatus", namespaces=names) == "error"
    assert [node.text for node in root.iterfind("q:ItemResults/q:ItemResult/q:ExecutionStatus", names)] == [
        "error",
        "complete",
    ]
    assert root.findtext("q:ErrorDescription", namespaces=names) == "half of it is damaged"


def test_the_same_content_has_the_same_report_id():
    def identifier(rows):
        root, names = read_report(report_xml("a", rows, NOW))
        return root.findtext("q:ReportId", namespaces=names)

    assert identifier([row()]) == identifier([judged("genuine")])
    assert identifier([row()]) != identifier([row(content_hash="cd" * 32)])


@pytest.mark.parametrize("title", AWKWARD)
def test_reports_of_awkward_titles(schema, title):
    said = judged(
        "genuine", title=title, defect=title or "x", note=title, reviewer=title, model=title, model_version=title
    )
    text = report_xml(title, [said], NOW, "2026-04")
    root = ElementTree.fromstring(text.encode())
    assert schema.errors(root) == []
    found = root.findtext(".//{*}ContentIdentifier/{*}ID")
    if not re.search("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", title):
        assert found == title


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_well_formed(text):
    [said] = ElementTree.fromstring(report_xml(text, [judged("genuine", note=text)], NOW)).iterfind(
        ".//{*}Annotation/{*}Editor"
    )
    assert said.findtext("{*}Name") == "Ana"


def test_releases_and_verdicts_are_all_covered():
    assert RELEASES == ("2026-01", "2026-04")
    spoken = {verdict or handover.UNREVIEWED for verdict in VERDICTS}
    assert spoken == set(handover.COLOURS) == set(handover_ebu_qc.SEVERITIES)
    assert spoken - {handover.UNREVIEWED} == set(review.vocabulary(PROJECT / "conf" / "verdicts.yaml"))
