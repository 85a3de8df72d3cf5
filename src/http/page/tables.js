// Tables of users, destinations, connections, requests and failed logins. Whatever comes from outside is set as text.

import { age, count, rate, size, stamp } from "./units.js";

// Rows that a table shows. The filter and CSV take all.
const SHOWN = 500;

const text = { show: (value) => value ?? "–" };
const number = { show: (value) => (value === null || value === undefined ? "–" : count(value)), number: true };
const bytes = { show: (value) => size(value ?? 0), number: true };
const maybeBytes = { ...bytes, show: (value) => (value === null ? "–" : size(value)) };
const speed = { show: (value) => (value ? rate(value) : "–"), number: true };
const seconds = { show: (value) => age(value ?? 0), number: true };
const time = { show: (value) => (value ? stamp(value) : "–") };

function column(key, title, form, more) {
  return { key, title, ...form, ...more };
}

const failed = (row) => row.reply !== 0;

const CODES = "reply of RFC 1928: 0 succeeded, 1 failed, 2 not allowed, 3 network or 4 host unreachable, 5 refused, 6 timed out";
const KINDS = "A: SOCKS5, 4: SOCKS4, H: HTTP CONNECT, U: target of datagrams";

// Each table: its paths, how their answers become rows, its columns, the most telling first, and the column it is sorted
// by at first.
export const TABLES = [
  {
    id: "connections",
    title: "Connections",
    paths: ["connections.json"],
    rows: ([connections]) => connections.map((row) => ({ ...row, key: row.id, bytes: row.up + row.down })),
    columns: [
      column("user", "User", text),
      column("destination", "Destination", text),
      column("speed", "Now", speed),
      column("bytes", "Bytes", bytes),
      column("age", "Age", seconds),
      column("state", "State", text),
      column("up", "Up", bytes),
      column("down", "Down", bytes),
      column("idle", "Idle", seconds),
      column("source", "Source", text),
      column("peer", "Address", text),
      column("rule", "Rule", number),
      column("id", "Id", text),
    ],
    sort: ["speed", -1],
  },
  {
    id: "users",
    title: "Users",
    paths: ["users.json"],
    rows: ([users]) => users.map((row) => ({ ...row, key: row.user, bytes: row.up + row.down })),
    columns: [
      column("user", "User", text),
      column("speed", "Now", speed),
      column("connections", "Open", number),
      column("bytes", "Bytes", bytes),
      column("last_seen", "Last byte", time),
      column("up", "Up", bytes),
      column("down", "Down", bytes),
      column("total", "Requests", number),
      column("quota_used", "Quota used", maybeBytes),
      column("quota", "Quota", text),
      column("expires", "Expires", text),
      column("sources", "Sources", number),
      column("locked", "Locked", text),
      column("role", "Role", text),
    ],
    sort: ["speed", -1],
  },
  {
    id: "destinations",
    title: "Destinations",
    paths: ["connections.json", "requests.json"],
    rows: ([connections, requests]) => destinations(connections, requests),
    columns: [
      column("destination", "Destination", text),
      column("connections", "Open", number),
      column("speed", "Now", speed),
      column("requests", "Finished", number),
      column("refused", "Without success", number),
      column("bytes", "Bytes", bytes),
      column("up", "Up", bytes),
      column("down", "Down", bytes),
      column("users", "Users", number),
    ],
    sort: ["connections", -1],
    note: "open connections and the newest requests",
  },
  {
    id: "requests",
    title: "Newest requests",
    paths: ["requests.json"],
    rows: ([requests]) => requests.map((row, at) => ({ ...row, at, bytes: row.up + row.down })),
    columns: [
      column("time", "Time", time),
      column("destination", "Destination", text),
      column("reason", "Reason", text, { bad: failed }),
      column("user", "User", text),
      column("reply", "Reply", number, { bad: failed, about: CODES }),
      column("bytes", "Bytes", bytes),
      column("duration", "Took", seconds),
      column("up", "Up", bytes),
      column("down", "Down", bytes),
      column("source", "Source", text),
      column("rule", "Rule", number),
      column("kind", "Kind", text, { about: KINDS }),
    ],
    sort: ["time", -1],
    note: "finished ones",
  },
  {
    id: "failed-logins",
    title: "Failed logins",
    paths: ["failed-logins.json"],
    rows: ([logins]) => logins,
    columns: [
      column("time", "Last", time),
      column("user", "User", text),
      column("source", "Source", text),
      column("count", "Times", number),
      column("service", "Service", text),
    ],
    sort: ["time", -1],
  },
];

function destinations(connections, requests) {
  const found = new Map();
  const of = (row) => {
    const name = row.destination ?? "–";
    if (!found.has(name)) {
      const zero = { connections: 0, requests: 0, refused: 0, users: new Set(), up: 0, down: 0, bytes: 0 };
      found.set(name, { key: name, destination: row.destination, ...zero });
    }
    const entry = found.get(name);
    entry.users.add(row.user);
    entry.up += row.up;
    entry.down += row.down;
    entry.bytes += row.up + row.down;
    return entry;
  };
  for (const row of connections) {
    if (row.destination !== null) {
      of(row).connections += 1;
    }
  }
  for (const row of requests) {
    const entry = of(row);
    entry.requests += 1;
    entry.refused += row.reply === 0 ? 0 : 1;
  }
  return [...found.values()].map((entry) => ({ ...entry, users: entry.users.size }));
}

// Compares two values: numbers as such, texts by their letters; what is missing comes last in any order.
export function compare(left, right, direction) {
  const missing = (value) => value === null || value === undefined;
  if (missing(left) || missing(right)) {
    return missing(left) - missing(right);
  }
  const isLess = typeof left === "number" && typeof right === "number" ? left < right : String(left) < String(right);
  return left === right ? 0 : direction * (isLess ? -1 : 1);
}

// A cell of CSV (RFC 4180). What a spreadsheet would take for a formula is not left to begin so.
export function csvCell(value) {
  const shown = value === null || value === undefined ? "" : String(value);
  const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(shown) ? `'${shown}` : shown;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// The table on the page: one of TABLES at a time.
export class Table {
  constructor(table, caption) {
    this.head = table.tHead;
    this.body = table.tBodies[0];
    this.caption = caption;
    this.words = [];
    // Counts what has been chosen: an answer for an earlier choice is none for this.
    this.choice = 0;
    this.sorts = new Map();
    this.choose(TABLES[0]);
  }

  // Shows another table, empty until its rows come.
  choose(kind) {
    this.kind = kind;
    this.choice += 1;
    this.rows = null;
    this.trouble = "";
    this.earlier = new Map();
    this.sort = this.sorts.get(kind.id) ?? kind.sort;
    const heading = this.head.ownerDocument.createElement("tr");
    for (const { key, title, about, number: isNumber } of kind.columns) {
      const cell = heading.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.dataset.key = key;
      cell.classList.toggle("number", Boolean(isNumber));
      cell.title = about ?? "";
      const button = cell.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", () => this.sortBy(key));
    }
    this.head.replaceChildren(heading);
    this.body.replaceChildren();
    this.draw();
  }

  sortBy(key) {
    const isNumber = this.kind.columns.find((each) => each.key === key).number;
    const first = isNumber || key === "time" || key === "last_seen" ? -1 : 1;
    this.sort = this.sort[0] === key ? [key, -this.sort[1]] : [key, first];
    this.sorts.set(this.kind.id, this.sort);
    this.draw();
  }

  // Rows that have all of these words, as they are shown or as the server has them.
  filterBy(words) {
    this.words = words.toLowerCase().split(/\s+/).filter(Boolean);
    this.draw();
  }

  // The rows could not be had.
  fail(trouble) {
    this.trouble = trouble;
    this.draw();
  }

  // Takes the answers of the paths. What has moved since the last ones, by time, is its speed.
  take(answers, now) {
    const rows = this.kind.rows(answers);
    const earlier = this.earlier;
    this.earlier = new Map();
    for (const row of rows) {
      const before = earlier.get(row.key);
      if (row.key !== undefined) {
        const moved = before ? Math.max(row.bytes - before.bytes, 0) : 0;
        row.speed = before && now > before.now ? (moved * 1000) / (now - before.now) : 0;
        this.earlier.set(row.key, { bytes: row.bytes, now });
      }
    }
    this.rows = rows;
    this.trouble = "";
    this.draw();
  }

  // The rows that the filter lets through, in their order.
  chosen() {
    const [key, direction] = this.sort;
    const { columns } = this.kind;
    const texts = (row) => columns.flatMap((each) => [String(row[each.key] ?? ""), String(each.show(row[each.key]))]);
    const holds = (row) => {
      const all = texts(row).join("\n").toLowerCase();
      return this.words.every((word) => all.includes(word));
    };
    const rows = (this.rows ?? []).filter((row) => !this.words.length || holds(row));
    return rows.sort((left, right) => compare(left[key], right[key], direction) || (left.at ?? 0) - (right.at ?? 0));
  }

  draw() {
    for (const cell of this.head.rows[0].cells) {
      const [key, direction] = this.sort;
      const word = direction < 0 ? "descending" : "ascending";
      cell.setAttribute("aria-sort", cell.dataset.key === key ? word : "none");
    }
    const rows = this.chosen();
    const { columns, note } = this.kind;
    const shown = rows.slice(0, SHOWN);
    shown.forEach((row, place) => {
      const line = this.body.rows[place] ?? this.body.insertRow();
      columns.forEach((each, at) => {
        const cell = line.cells[at] ?? line.insertCell();
        const value = String(each.show(row[each.key]));
        if (cell.textContent !== value) {
          cell.textContent = value;
        }
        const title = each.number ? "" : value;
        if (cell.title !== title) {
          cell.title = title;
        }
        const look = [each.number && "number", each.bad?.(row) && "bad"].filter(Boolean).join(" ");
        if (cell.className !== look) {
          cell.className = look;
        }
      });
    });
    while (this.body.rows.length > shown.length) {
      this.body.deleteRow(-1);
    }
    const summary = this.rows === null ? "loading" : this.summary(rows.length, shown.length, note);
    this.caption.textContent = this.trouble ? `${summary}; ${this.trouble}` : summary;
  }

  summary(chosen, shown, note) {
    const all = this.rows.length;
    const parts = [this.words.length ? `${count(chosen)} of ${count(all)} rows` : `${count(all)} rows`];
    if (shown < chosen) {
      parts.push(`the first ${shown} are shown`);
    }
    return [...parts, ...(note ? [note] : [])].join(", ");
  }

  // What the filter lets through, as CSV.
  csv() {
    const { columns } = this.kind;
    const lines = [columns.map((each) => csvCell(each.key))];
    for (const row of this.chosen()) {
      lines.push(columns.map((each) => csvCell(row[each.key])));
    }
    return lines.map((line) => `${line.join(",")}\r\n`).join("");
  }
}
