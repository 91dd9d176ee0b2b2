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

/** Verdicts as `jobs/review.py import` reads them: one line per judged detection, in the order of the page. */
function toCsv(detections, verdicts, reviewer) {
  const lines = [COLUMNS.join(",")];
  const written = new Set(); // two models may have found the same stretch
  for (const detection of detections) {
    if (Object.hasOwn(verdicts, detection.key) && !written.has(detection.key)) {
      written.add(detection.key);
      const row = { ...detection, ...verdicts[detection.key], reviewer };
      lines.push(COLUMNS.map((name) => csvField(row[name])).join(","));
    }
  }
  return lines.join("\n") + "\n";
}

/** What this browser keeps of a report, and whether it really does. */
function openStore(name) {
  const store = { kept: { reviewer: "", verdicts: {} }, isLasting: true, save: null };
  try {
    const found = JSON.parse(localStorage.getItem(name));
    if (found && typeof found.verdicts === "object") store.kept = found;
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
  let current = -1;

  function prepare(detection, article) {
    article.append(byId("controls").content.cloneNode(true));
    const find = (selector) => article.querySelector(selector);
    const entry = {
      detection, article, audio: find("audio"), head: find(".playhead"), figure: find("figure"),
      buttons: [...article.querySelectorAll("button[data-verdict]")], cause: find("select"), note: find("input"),
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
    const isSame = before && before.verdict === verdict;
    const reviewed_at = new Date().toISOString();
    store.kept.verdicts[entry.detection.key] = isSame ? { ...before, reviewed_at } : { verdict, cause: "", note: entry.note.value, reviewed_at };
    keep(entry);
  }

  function change(entry, more) {
    if (!verdictOf(entry)) return keep(entry);
    Object.assign(verdictOf(entry), more, { reviewed_at: new Date().toISOString() });
    return keep(entry);
  }

  function withdraw(entry) {
    delete store.kept.verdicts[entry.detection.key];
    entry.note.value = "";
    keep(entry);
  }

  function keep(entry) {
    store.save();
    for (const other of entries) if (other.detection.key === entry.detection.key) show(other);
    count();
  }

  function show(entry) {
    const said = verdictOf(entry);
    for (const button of entry.buttons) button.setAttribute("aria-pressed", String(Boolean(said) && said.verdict === button.dataset.verdict));
    const causes = said ? ["", ...(page.causes[said.verdict] || [])] : [""];
    entry.cause.replaceChildren(...causes.map((cause) => new Option(cause || "cause", cause)));
    entry.cause.disabled = causes.length < 2;
    entry.cause.value = said && causes.includes(said.cause) ? said.cause : "";
    if (said) entry.note.value = said.note;
    entry.article.classList.toggle("judged", Boolean(said));
  }

  // -- the bar

  function count() {
    const judged = entries.filter(verdictOf).length;
    const shown = entries.filter((entry) => !entry.article.hidden).length;
    byId("count").textContent = `${shown} of ${entries.length} shown, ${judged} judged in this page`;
    byId("lasting").hidden = store.isLasting;
    byId("download").disabled = judged === 0;
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
    link.href = URL.createObjectURL(new Blob([toCsv(page.detections, store.kept.verdicts, store.kept.reviewer)], { type: "text/csv" }));
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
    count();
  });
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
if (typeof module !== "undefined") module.exports = { toCsv };
