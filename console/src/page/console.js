// Shows what the node says of its objects, once a second. Everything shown is set as text, never as markup: names and errors are other people's words.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 4000;

const SECTIONS = {
  sources: ["source", "source-table"],
  views: ["materialized-view"],
  indexes: ["index"],
  tables: ["table"],
  sinks: ["sink"],
};

const STATUS = {
  running: ["good", "Running"],
  created: ["idle", "Created"],
  starting: ["busy", "Starting"],
  snapshotting: ["busy", "Reading the snapshot"],
  hydrating: ["busy", "Hydrating"],
  paused: ["idle", "Paused"],
  stalled: ["warn", "Stalled"],
  failed: ["bad", "Failed"],
};

const byId = (id) => document.getElementById(id);

// ---- numbers as people read them

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const count = (value) => (value === null ? "–" : whole.format(value));
const compact = (value) => (value < 100000 ? whole.format(value) : short.format(value));

const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

function bytes(value) {
  if (value === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function duration(ms) {
  if (ms === null) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function behind({ status, ingestion }) {
  if (!ingestion || status === "failed" || ingestion.offset_lag === null || !ingestion.snapshot_committed) return "–";
  if (ingestion.offset_lag === 0) return "up to date";
  if (ingestion.offset_unit === "bytes") return bytes(ingestion.offset_lag);
  return many(ingestion.offset_lag, ingestion.offset_unit.replace(/s$/, ""));
}

// Positions are text, since they may have more digits than numbers here.
const offset = (text) => (text === null ? "–" : whole.format(BigInt(text)));

function partitionLag({ lag }) {
  if (lag === null) return "–";
  return lag === 0 ? "up to date" : many(lag, "message");
}

// How many partitions there are, and which of them is furthest behind.
function partitionSummary(partitions) {
  const all = many(partitions.length, "partition");
  const worst = partitions.reduce((worst, other) => ((other.lag ?? -1) > (worst.lag ?? -1) ? other : worst));
  if (worst.lag > 0) return `${all} · ${worst.partition} is behind by ${many(worst.lag, "message")}`;
  const unknown = partitions.filter((partition) => partition.lag === null).length;
  return unknown === 0 ? `${all} · up to date` : `${all} · ${count(unknown)} not heard of yet`;
}

const PARTITION = [
  ["Partition", ({ partition }) => String(partition)],
  ["Read up to", ({ offset_committed }) => offset(offset_committed)],
  ["Ends at", ({ offset_known }) => offset(offset_known)],
  ["Behind", partitionLag],
];

// ---- the document

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Changes nothing that is as it should be: a selection stays, and a screen reader is not told again.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setTone(node, tone) {
  if (node.dataset.tone !== tone) node.dataset.tone = tone;
}

// The rows of one object: what it is, and below it, if there is such, how far its snapshot is, what is wrong with it, and the partitions of its topic.
class ObjectRows {
  constructor(columns, child) {
    this.name = element("span");
    this.of = element("span", "of");
    this.status = element("span", "pill");
    this.cells = columns.map(() => element("td", "number"));
    const head = element("th", "", this.name, this.of);
    head.scope = "row";
    this.main = element("tr", child ? "child" : "first", head, element("td", "", this.status), ...this.cells);

    this.fill = element("div");
    this.bar = element("div", "bar", this.fill);
    this.bar.role = "progressbar";
    this.bar.ariaValueMin = "0";
    this.bar.ariaValueMax = "100";
    this.read = element("span");
    this.progress = this.below(element("div", "progress", this.bar, this.read), columns, child);

    this.error = element("span");
    this.hint = element("span", "hint");
    this.message = element("p", "trouble", this.error, this.hint);
    this.trouble = this.below(this.message, columns, child);

    const heads = PARTITION.map(([name]) => {
      const head = element("th", "number", name);
      head.scope = "col";
      return head;
    });
    this.summary = element("summary");
    this.partitions = element("tbody");
    this.list = element("details", "partitions", this.summary, element("table", "", element("thead", "", element("tr", "", ...heads)), this.partitions));
    this.list.addEventListener("toggle", () => this.listPartitions());
    this.listed = [];
    this.topic = this.below(this.list, columns, child);
  }

  below(content, columns, child) {
    const cell = element("td", "", content);
    cell.colSpan = columns.length + 2;
    return element("tr", child ? "child more" : "more", cell);
  }

  rows() {
    return [this.main, this.progress, this.trouble, this.topic];
  }

  show(object, columns, of) {
    const qualified = qualifiedName(object);
    this.main.dataset.object = qualified;
    this.main.dataset.status = object.status;
    setText(this.name, qualified);
    this.name.title = `${object.database}.${qualified} (${object.id})`;
    setText(this.of, of);
    const [tone, label] = STATUS[object.status] ?? ["idle", object.status];
    setTone(this.status, tone);
    setText(this.status, label);
    columns.forEach((column, index) => setText(this.cells[index], column(object)));
    this.showProgress(object);
    this.showTrouble(object, tone);
    this.showPartitions(object);
  }

  showProgress(object) {
    const snapshot = object.ingestion;
    this.progress.hidden = !snapshot || object.status !== "snapshotting";
    if (this.progress.hidden) return;
    const staged = snapshot.snapshot_staged ?? 0;
    const known = snapshot.snapshot_known;
    const perSecond = this.rate(object.id, staged);
    const rate = perSecond === null || (known && staged >= known) ? "" : ` · ${compact(perSecond)} rows/s`;
    if (known) {
      // Upstream estimates: there may be more.
      const percent = Math.min(100, Math.floor((100 * staged) / known));
      this.bar.className = "bar";
      this.fill.style.width = `${percent}%`;
      this.bar.ariaValueNow = String(percent);
      setText(this.read, `${percent} % · ${count(staged)} of about ${count(known)} rows${rate}`);
    } else {
      this.bar.className = "bar unknown";
      this.bar.removeAttribute("aria-valuenow");
      this.fill.style.width = "";
      setText(this.read, `${count(staged)} rows${rate}`);
    }
    this.bar.ariaLabel = `Snapshot of ${qualifiedName(object)}`;
    this.bar.ariaValueText = this.read.textContent;
  }

  // Rows per second over the last ten seconds or so; `null` until there is something to compare with.
  rate(id, staged) {
    const now = performance.now();
    if (this.rateOf !== id) this.samples = [];
    this.rateOf = id;
    this.samples.push([now, staged]);
    while (this.samples.length > 2 && now - this.samples[0][0] > 10000) this.samples.shift();
    const [since, before] = this.samples[0];
    return now > since ? Math.round((1000 * Math.max(0, staged - before)) / (now - since)) : null;
  }

  showTrouble(object, tone) {
    const error = object.error ?? "";
    this.trouble.hidden = error === "" && !object.hint;
    if (this.trouble.hidden) return;
    setTone(this.message, tone === "bad" ? "bad" : "warn");
    const others = object.data_errors > 1 ? ` (and ${many(object.data_errors - 1, "more error")} in its data)` : "";
    setText(this.error, error + others);
    setText(this.hint, object.hint ?? "");
  }

  showPartitions({ ingestion }) {
    this.listed = ingestion ? ingestion.partitions : [];
    this.topic.hidden = this.listed.length === 0;
    if (this.topic.hidden) return;
    setText(this.summary, partitionSummary(this.listed));
    this.listPartitions();
  }

  // Not while nobody looks: there may be thousands.
  listPartitions() {
    if (!this.list.open) return;
    const { rows } = this.partitions;
    while (rows.length > this.listed.length) this.partitions.lastChild.remove();
    while (rows.length < this.listed.length) this.partitions.append(element("tr", "", ...PARTITION.map(() => element("td", "number"))));
    this.listed.forEach((partition, index) => {
      PARTITION.forEach(([, column], place) => setText(rows[index].cells[place], column(partition)));
    });
  }
}

function qualifiedName(object) {
  const name = `${object.schema}.${object.name}`;
  return object.database === "materialize" ? name : `${object.database}.${name}`;
}

const LAGGING = [(object) => duration(object.lag_ms), (object) => count(object.rows), (object) => bytes(object.bytes)];
const COLUMNS = {
  sources: [
    (object) => count(object.ingestion ? object.ingestion.messages_received : null),
    behind,
    (object) => count(object.rows),
    (object) => bytes(object.bytes),
  ],
  views: LAGGING,
  indexes: LAGGING,
  tables: LAGGING,
  sinks: [
    (object) => duration(object.lag_ms),
    (object) => count(object.delivery ? object.delivery.messages_committed : null),
    (object) => bytes(object.delivery ? object.delivery.bytes_committed : null),
  ],
};

// What is known of each object's rows in the document, by section and identity.
const shown = { sources: new Map(), views: new Map(), indexes: new Map(), tables: new Map(), sinks: new Map() };

// Sources by name, each followed by its tables; everything else by name.
function inOrder(objects, all) {
  const order = (left, right) => qualifiedName(left).localeCompare(qualifiedName(right));
  const tops = objects.filter((object) => object.type !== "source-table").sort(order);
  const ordered = tops.flatMap((top) => [
    top,
    ...objects.filter((object) => object.type === "source-table" && object.parent === top.id).sort(order),
  ]);
  // A table whose source is not there would be a bug; not to show it would be another.
  return ordered.concat(objects.filter((object) => object.type === "source-table" && !all.has(object.parent)));
}

function showSection(name, objects, all) {
  const section = byId(name);
  const columns = COLUMNS[name];
  const known = shown[name];
  const wanted = [];
  const seen = new Set();
  for (const object of objects) {
    const child = object.type === "source-table";
    let rows = known.get(object.id);
    if (!rows) {
      rows = new ObjectRows(columns, child);
      known.set(object.id, rows);
    }
    seen.add(object.id);
    let of = "";
    if (object.source_type) of = ` · ${object.source_type}`;
    if (object.sink_type) of = ` · ${object.sink_type}`;
    if (object.type === "index" && object.parent_name) of = ` on ${object.parent_name}`;
    if (object.type === "sink" && object.parent_name) of += ` from ${object.parent_name}`;
    rows.show(object, columns, of);
    wanted.push(...rows.rows());
  }
  for (const id of known.keys()) if (!seen.has(id)) known.delete(id);
  const body = section.querySelector("tbody");
  if (wanted.length !== body.rows.length || wanted.some((row, index) => row !== body.rows[index])) {
    body.replaceChildren(...wanted);
  }
  const tops = objects.filter((object) => object.type !== "source-table").length;
  setText(section.querySelector(".count"), tops === 0 ? "" : String(tops));
  section.querySelector(".scroll").hidden = objects.length === 0;
  section.querySelector(".empty").hidden = objects.length !== 0;
}

// Changes per second since the last answer; `null` for the first one and where counters began anew.
let counted = null;

function changeRate(node, objects) {
  const total = objects
    .filter((object) => object.type === "source" && object.ingestion)
    .reduce((sum, object) => sum + object.ingestion.messages_received, 0);
  const before = counted;
  counted = { at: node.now_ms, total, started: node.started_ms };
  if (!before || before.started !== node.started_ms || total < before.total || node.now_ms <= before.at) return null;
  return Math.round((1000 * (total - before.total)) / (node.now_ms - before.at));
}

function showTiles(node, objects) {
  // A source's rows are those of its tables.
  const held = objects.filter((object) => object.type !== "source");
  const sum = (key) => held.reduce((total, object) => total + (object[key] ?? 0), 0);
  const troubled = objects.filter((object) => object.status === "stalled" || object.status === "failed").length;
  const rate = changeRate(node, objects);
  setText(byId("tile-lag"), duration(node.lag_ms));
  setText(byId("tile-rate"), rate === null ? "–" : compact(rate));
  setText(byId("tile-rows"), compact(sum("rows")));
  setText(byId("tile-bytes"), bytes(sum("bytes")));
  setText(byId("tile-trouble"), String(troubled));
  byId("tile-trouble").classList.toggle("alarm", troubled > 0);
}

function show({ node, objects }) {
  const all = new Map(objects.map((object) => [object.id, object]));
  for (const [name, types] of Object.entries(SECTIONS)) {
    showSection(name, inOrder(objects.filter((object) => types.includes(object.type)), all), all);
  }
  showTiles(node, objects);
  setTone(byId("node"), node.ready ? "good" : "busy");
  setText(byId("node"), node.ready ? "Running" : `Starting: ${node.reason}`);
  setText(byId("version"), `Flowstone ${node.version}`);
  setText(byId("uptime"), `· up for ${duration(Math.floor((node.now_ms - node.started_ms) / 1000) * 1000)}`);
  byId("main").ariaBusy = "false";
}

// ---- asking, again and again

let answeredAt = null;
let version = null;

async function ask() {
  // Not relative to the page, whose address may hold a password: browsers refuse that.
  const response = await fetch(`${location.origin}/api/objects`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`the node answers with status ${response.status}`);
  const answer = await response.json();
  // Another version of the node brings another version of this page.
  if (version !== null && version !== answer.node.version) location.reload();
  version = answer.node.version;
  show(answer);
  answeredAt = Date.now();
}

function showAbsence(absent) {
  document.body.classList.toggle("stale", absent);
  byId("banner").hidden = !absent;
  if (!absent) return;
  setTone(byId("node"), "bad");
  setText(byId("node"), "No answer");
  const when = answeredAt === null ? "" : ` What is shown is from ${new Date(answeredAt).toLocaleTimeString()}.`;
  setText(byId("banner"), `The node does not answer.${when} Trying again every second.`);
}

let timer = null;

async function turn() {
  clearTimeout(timer);
  try {
    await ask();
    showAbsence(false);
  } catch (error) {
    console.debug(error);
    showAbsence(true);
  }
  clearTimeout(timer);
  // Nobody looks at a hidden page.
  if (!document.hidden) timer = setTimeout(turn, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) turn();
});
turn();
