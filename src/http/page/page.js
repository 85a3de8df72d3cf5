// The page: asks the server each second how it is, and for the rows of the table that is chosen. It changes nothing.

import { Plot, Rows } from "./plots.js";
import { Table, TABLES } from "./tables.js";
import { age, clock, count, micros, perSecond, rate, size } from "./units.js";

const PERIOD = 1000;
const TABLE_PERIOD = 2000;
// Asking for a table takes at most this share of the time, so that long ones cost little.
const TABLE_SHARE = 5;
// A server that is there answers at once; a long table may take a slow line a minute.
const TIMEOUT = 5000;
const TABLE_TIMEOUT = 60000;

// The columns of the server's history.
const [UP, DOWN, CONNECTIONS, ACCEPTED, LOGINS, FAILED, QUERIES, NOT_FOUND, LAG] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

const at = (id) => document.getElementById(id);

const plots = [
  {
    title: "Throughput",
    format: rate,
    binary: true,
    least: 1024,
    curves: [{ name: "down", look: "one", column: DOWN }, { name: "up", look: "two", column: UP }],
  },
  {
    title: "Connections",
    format: count,
    curves: [
      { name: "open", look: "one", column: CONNECTIONS, level: true },
      { name: "new a second", look: "two", column: ACCEPTED },
    ],
  },
  {
    title: "Logins",
    format: perSecond,
    curves: [{ name: "good", look: "one", column: LOGINS }, { name: "failed", look: "bad", column: FAILED }],
  },
  {
    title: "DNS",
    format: perSecond,
    curves: [{ name: "look-ups", look: "one", column: QUERIES }, { name: "failed", look: "bad", column: NOT_FOUND }],
  },
  {
    title: "Loop lag",
    format: micros,
    least: 1000,
    curves: [{ name: "longest turn", look: "one", column: LAG, level: true }],
  },
].map((settings) => new Plot(at("plots"), settings));

const history = { seconds: new Rows(600), minutes: new Rows(1440), time: 0 };
const table = new Table(at("table"), at("caption"));
const speeds = { time: 0, started: null };
let span = "seconds";
let heard = null;

// An answer of the server that is no success.
class Refusal extends Error {}

async function ask(path, signal) {
  const answer = await fetch(path, { signal, cache: "no-store" });
  if (!answer.ok) {
    throw new Refusal(`${path}: ${answer.status} ${answer.statusText}`);
  }
  return answer.json();
}

async function askForStatus() {
  const status = await ask("status.json", AbortSignal.timeout(TIMEOUT));
  const { info, metrics, history: recent } = status;
  const append = () =>
    history.seconds.append(recent.second, recent.seconds) && history.minutes.append(recent.minute, recent.minutes);
  const started = `${info.pid} ${metrics.counted_since} ${Math.round(recent.time - info.uptime)}`;
  const isOther = speeds.started === null || !isSame(speeds.started, started);
  if (isOther || !append()) {
    const all = await ask("history.json", AbortSignal.timeout(TIMEOUT));
    history.seconds.replace(all.second, all.seconds);
    history.minutes.replace(all.minute, all.minutes);
    history.time = all.time;
  } else {
    history.time = recent.time;
  }
  speeds.started = started;
  heard = Date.now();
  showState(info);
  showFigures(info, metrics);
  showPlots();
}

// Whether two answers are of one server: its number, and the start, which is known to a second.
function isSame(left, right) {
  const [one, two] = [left.split(" "), right.split(" ")];
  return one[0] === two[0] && Math.abs(Number(one[2]) - Number(two[2])) <= 2;
}

function showState(info) {
  document.body.classList.remove("lost");
  at("notice").hidden = true;
  const left = info.closing_in === null ? "" : `, ${age(info.closing_in)} left`;
  at("state").className = info.state;
  at("state").textContent = info.state + left;
  at("version").textContent = info.version;
  at("since").textContent = `up ${age(info.uptime)}`;
  document.title = `${count(info.connections)} – socks5d`;
}

function showLoss(error) {
  document.body.classList.add("lost");
  at("state").className = "lost";
  at("state").textContent = "no answer";
  const since = heard === null ? "" : ` since ${clock(heard / 1000, true)}`;
  const what = error instanceof Refusal ? "refuses to answer" : "has not answered";
  at("notice").textContent = `The server ${what}${since} (${error.message}). It is asked again each second.`;
  at("notice").hidden = false;
  document.title = "no answer – socks5d";
}

function showFigures(info, metrics) {
  const newest = history.seconds.rows.at(-1) ?? [0, 0, 0, 0, 0, 0, 0, 0, 0];
  const replies = [1, 2, 3, 4, 5, 6, 7, 8].reduce((sum, code) => sum + metrics[`reply_${code}`], 0);
  const [isStored, isRead] = [metrics.store_ok === 1, metrics.reload_ok === 1];
  const trouble = [isStored ? "" : "not written", isRead ? "" : "not reloaded"].filter(Boolean).join(", ");
  const few = (left, limit) => left >= limit * 0.9;
  const figures = [
    ["Connections", count(info.connections), `of ${count(info.connections_limit)}`, few(info.connections, info.connections_limit)],
    ["Down", rate(newest[DOWN]), size(metrics.bytes_down)],
    ["Up", rate(newest[UP]), size(metrics.bytes_up)],
    ["New connections", perSecond(newest[ACCEPTED]), count(metrics.accepted)],
    ["Requests refused", count(replies), `${count(metrics.refused_rules)} not allowed`],
    ["Turned away", count(metrics.refused_limit), "by limits", metrics.refused_limit > 0],
    ["Logins failed", count(metrics.logins_failed), `${count(metrics.logins_queued)} wait`],
    ["UDP associations", count(metrics.udp_associations_open), `${count(metrics.udp_associations)} in all`],
    ["DNS", perSecond(newest[QUERIES]), `${count(info.dns_cached)} cached`],
    ["Loop, 99 %", micros(info.loop_p99 * 1e6), `now ${micros(info.loop_lag * 1e6)}`],
    ["Descriptors", count(info.descriptors), `of ${count(info.descriptors_limit)}`, few(info.descriptors, info.descriptors_limit)],
    ["Memory", size(info.rss), `${size(info.buffers)} buffers`],
    ["Log lines dropped", count(info.log_lines_dropped), "", info.log_lines_dropped > 0],
    ["Files", isStored && isRead ? "good" : "failing", trouble, trouble !== ""],
  ];
  const list = at("figures");
  figures.forEach(([name, value, more, isBad], place) => {
    const box = list.children[place] ?? list.appendChild(figureBox(name));
    const [shown, small] = [box.querySelector("span"), box.querySelector("small")];
    shown.textContent = value;
    small.textContent = more ? ` ${more}` : "";
    shown.parentElement.className = isBad ? "bad" : "";
  });
}

function figureBox(name) {
  const box = document.createElement("div");
  box.appendChild(document.createElement("dt")).textContent = name;
  const value = box.appendChild(document.createElement("dd"));
  value.appendChild(document.createElement("span"));
  value.appendChild(document.createElement("small"));
  return box;
}

function showPlots() {
  const { rows, length, newest } = history[span];
  const seconds = span === "seconds" ? 1 : 60;
  // The newest minute ended up to a minute ago.
  const time = history.time - (span === "seconds" ? 0 : history.seconds.newest % 60);
  for (const plot of plots) {
    plot.show({ rows, length, span: seconds, time, newest });
  }
}

// The request that runs; another choice ends it.
let asking = new AbortController();

async function askForTable() {
  const { kind, choice } = table;
  asking = new AbortController();
  const timer = setTimeout(() => asking.abort(new Error("it takes too long")), TABLE_TIMEOUT);
  const { signal } = asking;
  try {
    const answers = await Promise.all(kind.paths.map((path) => ask(path, signal)));
    if (choice === table.choice) {
      table.take(answers, performance.now());
    }
  } catch (error) {
    if (choice === table.choice) {
      table.fail(error.message);
    }
  } finally {
    clearTimeout(timer);
  }
  at("csv").disabled = table.rows === null;
}

function choose(kind, isFocused) {
  for (const tab of at("tabs").children) {
    const isChosen = tab.id === `tab-${kind.id}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    if (isChosen && isFocused) {
      tab.focus();
    }
  }
  at("panel").setAttribute("aria-labelledby", `tab-${kind.id}`);
  table.choose(kind);
  at("csv").disabled = true;
  window.history.replaceState(null, "", `#${kind.id}`);
  asking.abort();
  wakeTable();
}

// Waits for the next time, or until something has been chosen.
let wakeTable = () => {};
function pause(milliseconds) {
  return new Promise((done) => {
    wakeTable = done;
    setTimeout(done, milliseconds);
  });
}

// A page that is not seen asks for nothing.
function visible() {
  return new Promise((done) => {
    const look = () => {
      if (!document.hidden) {
        document.removeEventListener("visibilitychange", look);
        done();
      }
    };
    document.addEventListener("visibilitychange", look);
    look();
  });
}

async function keepStatus() {
  for (;;) {
    await visible();
    const began = performance.now();
    await askForStatus().catch(showLoss);
    const took = performance.now() - began;
    await new Promise((done) => setTimeout(done, Math.max(PERIOD - took, PERIOD / 4)));
  }
}

async function keepTable() {
  for (;;) {
    await visible();
    const began = performance.now();
    const { choice } = table;
    await askForTable();
    if (choice === table.choice) {
      await pause(Math.max(TABLE_PERIOD, (performance.now() - began) * TABLE_SHARE));
    }
  }
}

function chooseSpan(value) {
  span = value;
  document.querySelector(`input[name="span"][value="${value}"]`).checked = true;
  showPlots();
}

function saveCsv() {
  const url = URL.createObjectURL(new Blob([table.csv()], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `socks5d-${table.kind.id}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), PERIOD);
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) {
    return;
  }
  if (event.target === at("filter")) {
    if (event.key === "Escape") {
      at("panel").focus();
    }
    return;
  }
  if (event.key === "/") {
    at("filter").focus();
    event.preventDefault();
  } else if (event.key === "t") {
    chooseSpan(span === "seconds" ? "minutes" : "seconds");
  } else if (TABLES[Number(event.key) - 1]) {
    choose(TABLES[Number(event.key) - 1], true);
  }
}

function onTabKey(event) {
  const place = TABLES.indexOf(table.kind);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) {
    choose(TABLES.at((place + step) % TABLES.length), true);
    event.preventDefault();
  }
}

for (const kind of TABLES) {
  const tab = at("tabs").appendChild(document.createElement("button"));
  Object.assign(tab, { type: "button", id: `tab-${kind.id}`, textContent: kind.title });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", "panel");
  tab.addEventListener("click", () => choose(kind, false));
}
at("tabs").addEventListener("keydown", onTabKey);
at("filter").addEventListener("input", (event) => table.filterBy(event.target.value));
at("csv").addEventListener("click", saveCsv);
for (const radio of document.querySelectorAll('input[name="span"]')) {
  radio.addEventListener("change", () => chooseSpan(radio.value));
}
document.addEventListener("keydown", onKey);
const named = () => TABLES.find((kind) => `#${kind.id}` === location.hash) ?? TABLES[0];
window.addEventListener("hashchange", () => choose(named(), false));
choose(named(), false);
keepStatus();
keepTable();
