/* Keys, verdicts and play heads of the page that jobs/report.py writes. Nothing is loaded and nothing is sent. */
"use strict";

const COLUMNS = [
  "content_hash", "title_id", "track", "defect", "start_s", "end_s", "verdict", "cause", "note", "reviewer", "reviewed_at",
];

/** A field of a CSV line (RFC 4180). */
function csvField(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Verdicts as `jobs/review.py import` reads them: a line per judged detection and reviewer, in the order of the page. */
function toCsv(detections, verdicts) {
  const lines = [COLUMNS.join(",")];
  const written = new Set(); // two models may have found the same stretch
  for (const detection of detections) {
    if (Object.hasOwn(verdicts, detection.key) && !written.has(detection.key)) {
      written.add(detection.key);
      const verdict = verdicts[detection.key];
      for (const one of [...(verdict.others || []), verdict]) {
        const row = { ...detection, ...one };
        lines.push(COLUMNS.map((name) => csvField(row[name])).join(","));
      }
    }
  }
  return lines.join("\n") + "\n";
}

/**
 * A verdict as somebody says it now. It carries their name from then on, whoever saves the file; what others have said of
 * the detection (`before`, and its `others`) stays beside it.
 */
function said(before, reviewer, more) {
  const earlier = before ? [...(before.others || []), before] : [];
  const others = earlier.filter((one) => one.reviewer !== reviewer && one.reviewer !== "");
  return {
    cause: "", note: "", ...more, reviewer, reviewed_at: new Date().toISOString(),
    others: others.map(({ others: _, ...one }) => one),
  };
}

/** What is left of a verdict that is taken back: the last that somebody else said, if anybody did. */
function takenBack(verdict) {
  const others = [...((verdict && verdict.others) || [])];
  const last = others.pop();
  return last && { ...last, others };
}

/** What is kept of a report, as this version of the page reads it: earlier ones kept one name for all verdicts. */
function upgraded(kept) {
  const reviewer = kept.reviewer || "";
  const named = Object.entries(kept.verdicts).map(([key, verdict]) => [key, { reviewer, ...verdict }]);
  return { ...kept, reviewer, verdicts: Object.fromEntries(named) };
}

/** What this browser keeps of a report, and whether it really does. */
function openStore(name) {
  const store = { kept: { reviewer: "", verdicts: {} }, isLasting: true, save: null };
  try {
    const found = JSON.parse(localStorage.getItem(name));
    if (found && found.verdicts && typeof found.verdicts === "object") store.kept = upgraded(found);
  } catch (error) {
    store.isLasting = error instanceof SyntaxError;
  }
  store.save = () => {
    try {
      localStorage.setItem(name, JSON.stringify(store.kept));
    } catch {
      store.isLasting = false;
    }
  };
  return store;
}

const KEYS = { g: "genuine", c: "creative_intent", f: "false_positive", u: "unsure" };

function start() {
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("data").textContent);
  const store = openStore(`auscult-report/${page.report}`);
  const entries = page.detections.map((detection) => prepare(detection, byId(`d${detection.number}`)));
  const unnamed = new Set(); // keys of what was judged since the page was opened, and before a name was given
  let current = -1;

  function prepare(detection, article) {
    article.append(byId("controls").content.cloneNode(true));
    const find = (selector) => article.querySelector(selector);
    const entry = {
      detection, article, audio: find("audio"), head: find(".playhead"), figure: find("figure"),
      buttons: [...article.querySelectorAll("button[data-verdict]")], cause: find("select"), note: find("input"),
      by: find(".by"),
    };
    for (const button of entry.buttons) {
      button.addEventListener("click", () => judge(entry, button.dataset.verdict));
    }
    entry.cause.addEventListener("change", () => change(entry, { cause: entry.cause.value }));
    entry.note.addEventListener("change", () => change(entry, { note: entry.note.value }));
    if (entry.audio) {
      entry.audio.addEventListener("play", () => {
        if (entry.audio.paused) return; // the event comes late, after a quick step onward
        for (const other of entries) if (other !== entry && other.audio) other.audio.pause();
        select(entries.indexOf(entry), false);
        follow(entry);
      });
      entry.audio.addEventListener("seeked", () => placeHead(entry));
      entry.figure.addEventListener("click", (event) => seek(entry, event));
    }
    return entry;
  }

  // -- playing

  function placeHead(entry) {
    const { from_s, to_s, clip_start_s } = entry.detection;
    const share = (clip_start_s + entry.audio.currentTime - from_s) / (to_s - from_s);
    entry.head.style.left = `${100 * (page.axis[0] + share * (page.axis[1] - page.axis[0]))}%`;
    entry.head.hidden = share < 0 || share > 1;
  }

  function follow(entry) {
    placeHead(entry);
    if (!entry.audio.paused) requestAnimationFrame(() => follow(entry));
  }

  function seek(entry, event) {
    const box = entry.figure.getBoundingClientRect();
    const { from_s, to_s, clip_start_s, clip_end_s } = entry.detection;
    const share = ((event.clientX - box.left) / box.width - page.axis[0]) / (page.axis[1] - page.axis[0]);
    const at = from_s + share * (to_s - from_s);
    if (at < clip_start_s || at > clip_end_s) return;
    entry.audio.currentTime = at - clip_start_s;
    play(entry);
  }

  function play(entry) {
    if (entry.audio) entry.audio.play().catch(() => {}); // a browser may want a click first
  }

  function toggle() {
    if (current < 0) return step(1);
    const { audio } = entries[current];
    if (audio && !audio.paused) return audio.pause();
    return play(entries[current]);
  }

  function select(index, isScrolled) {
    if (current >= 0) entries[current].article.classList.remove("current");
    current = index;
    entries[index].article.classList.add("current");
    if (isScrolled) entries[index].article.scrollIntoView({ block: "start" });
  }

  function step(by) {
    if (current >= 0 && entries[current].audio) entries[current].audio.pause();
    for (let index = current + by; index >= 0 && index < entries.length; index += by) {
      if (!entries[index].article.hidden) {
        select(index, true);
        play(entries[index]);
        return;
      }
    }
  }

  // -- judging

  const verdictOf = (entry) => store.kept.verdicts[entry.detection.key];

  function judge(entry, verdict) {
    const before = verdictOf(entry);
    const isMine = before && before.reviewer === store.kept.reviewer;
    const note = before && !isMine && entry.note.value === before.note ? "" : entry.note.value; // theirs is not mine
    say(entry, isMine && before.verdict === verdict ? before : { verdict, note });
  }

  function change(entry, more) {
    if (verdictOf(entry)) say(entry, { ...verdictOf(entry), ...more });
    else keep(entry);
  }

  function say(entry, more) {
    const { key } = entry.detection;
    store.kept.verdicts[key] = said(verdictOf(entry), store.kept.reviewer, more);
    if (store.kept.reviewer === "") unnamed.add(key);
    else unnamed.delete(key);
    keep(entry);
  }

  function withdraw(entry) {
    const { key } = entry.detection;
    const left = takenBack(verdictOf(entry));
    if (left) store.kept.verdicts[key] = left;
    else delete store.kept.verdicts[key];
    unnamed.delete(key);
    entry.note.value = "";
    keep(entry);
  }

  /** Whoever gives a name after judging has judged; what lay there without one may be anybody's. */
  function sign() {
    if (store.kept.reviewer === "") return;
    for (const key of unnamed) store.kept.verdicts[key].reviewer = store.kept.reviewer;
    unnamed.clear();
    store.save();
    entries.forEach(show);
    count();
  }

  function keep(entry) {
    store.save();
    for (const other of entries) if (other.detection.key === entry.detection.key) show(other);
    count();
  }

  function show(entry) {
    const verdict = verdictOf(entry);
    for (const button of entry.buttons) button.setAttribute("aria-pressed", String(Boolean(verdict) && verdict.verdict === button.dataset.verdict));
    const causes = verdict ? ["", ...(page.causes[verdict.verdict] || [])] : [""];
    entry.cause.replaceChildren(...causes.map((cause) => new Option(cause || "cause", cause)));
    entry.cause.disabled = causes.length < 2;
    entry.cause.value = verdict && causes.includes(verdict.cause) ? verdict.cause : "";
    if (verdict) entry.note.value = verdict.note;
    entry.by.textContent = verdict && verdict.reviewer !== "" ? `by ${verdict.reviewer}` : "";
    entry.article.classList.toggle("judged", Boolean(verdict));
  }

  // -- the bar

  function count() {
    const judged = entries.filter(verdictOf);
    const shown = entries.filter((entry) => !entry.article.hidden).length;
    const nameless = judged.filter((entry) => verdictOf(entry).reviewer === "").length;
    byId("count").textContent = `${shown} of ${entries.length} shown, ${judged.length} judged in this page`;
    byId("nameless").textContent = `${nameless} without a reviewer's name`;
    byId("nameless").hidden = nameless === 0;
    byId("lasting").hidden = store.isLasting;
    byId("download").disabled = judged.length === 0;
  }

  function filter() {
    const defect = byId("defect").value;
    const state = byId("state").value;
    for (const entry of entries) {
      const isOpen = !verdictOf(entry) && !entry.detection.is_decided;
      const fits = state === "all" || (state === "undecided") === isOpen;
      entry.article.hidden = !fits || (defect !== "" && defect !== entry.detection.defect);
    }
    count();
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([toCsv(page.detections, store.kept.verdicts)], { type: "text/csv" }));
    link.download = "verdicts.csv";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  byId("reviewer").value = store.kept.reviewer;
  byId("reviewer").addEventListener("input", () => {
    store.kept.reviewer = byId("reviewer").value.trim();
    store.save();
  });
  byId("reviewer").addEventListener("change", sign);
  byId("defect").addEventListener("change", filter);
  byId("state").addEventListener("change", filter);
  byId("download").addEventListener("click", download);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const place = event.target.tagName;
    if (place === "INPUT" || place === "SELECT") {
      if (event.key === "Escape" || (event.key === "Enter" && place === "INPUT")) event.target.blur();
      return;
    }
    const entry = entries[current];
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === " " && place !== "BUTTON" && place !== "AUDIO" && place !== "SUMMARY") toggle();
    else if (entry && Object.hasOwn(KEYS, event.key)) {
      judge(entry, KEYS[event.key]);
      if (byId("onward").checked) step(1);
    } else if (entry && event.key === "x") withdraw(entry);
    else if (entry && event.key === "n") {
      entry.note.focus();
    } else return;
    event.preventDefault();
  });

  const makeRoom = () => { // below the bar, for what is scrolled to
    const bar = document.querySelector(".bar");
    const isFixed = getComputedStyle(bar).position === "sticky";
    document.documentElement.style.scrollPaddingTop = `${isFixed ? bar.offsetHeight + 8 : 8}px`;
  };
  window.addEventListener("resize", makeRoom);
  entries.forEach(show);
  filter();
  makeRoom();
}

if (typeof document !== "undefined") start();
if (typeof module !== "undefined") module.exports = { toCsv, said, takenBack, upgraded };
