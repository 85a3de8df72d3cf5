// Curves over time: what the server has kept, drawn as SVG. A plot can be read with the pointer and with the arrow keys.

import { clock } from "./units.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 62;
const BOTTOM = 16;
const TOP = 6;
// Seconds between two times on the axis, and the width that a time needs.
const TIME_STEPS = [60, 120, 300, 3600, 7200, 14400, 21600, 43200];
const TIME_WIDTH = 70;

// The numbered rows of a ring of the server, oldest first.
export class Rows {
  constructor(length) {
    this.length = length;
    this.newest = 0;
    this.rows = [];
  }

  // Takes all that the server has.
  replace(newest, rows) {
    this.newest = newest;
    this.rows = rows.slice(-this.length);
  }

  // Appends the rows that are new. False: some between are missing, or the server is another one.
  append(newest, rows) {
    const added = newest - this.newest;
    if (added < 0 || added > rows.length) {
      return false;
    }
    this.rows = this.rows.concat(added ? rows.slice(-added) : []).slice(-this.length);
    this.newest = newest;
    return true;
  }
}

function svg(name, parent, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  return parent.appendChild(element);
}

// The next number of 1, 2 and 5 with zeros, or of powers of two for bytes.
export function ceiling(value, binary) {
  if (value <= 1) {
    return 1;
  }
  if (binary) {
    return 2 ** Math.ceil(Math.log2(value));
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

// A plot: a title, the least value at its top, and curves, each with a name, a class, its value in a row, and whether it is a level. What is
// counted is shown for a second, whatever the span of a row is.
export class Plot {
  constructor(parent, { title, format, binary, least, curves }) {
    Object.assign(this, { title, format, binary, least: least ?? 1, curves });
    const figure = parent.appendChild(document.createElement("figure"));
    const caption = figure.appendChild(document.createElement("figcaption"));
    caption.appendChild(document.createElement("b")).textContent = title;
    this.time = caption.appendChild(document.createElement("span"));
    this.values = curves.map((curve) => {
      const value = caption.appendChild(document.createElement("span"));
      value.className = curve.look;
      return value;
    });
    this.picture = svg("svg", figure, { role: "img", tabindex: "0" });
    this.data = { rows: [], length: 1, span: 1, time: 0, newest: 0 };
    this.cursor = null;
    this.picture.addEventListener("pointermove", (event) => this.pointAt(event));
    this.picture.addEventListener("pointerdown", (event) => this.pointAt(event));
    this.picture.addEventListener("pointerleave", () => this.read(null));
    this.picture.addEventListener("blur", () => this.read(null));
    this.picture.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  // `rows`, oldest first, of `length` that there can be; each of `span` seconds; the newest has the number `newest` and
  // ended at `time`. The cursor stays at its row.
  show(data) {
    const passed = data.newest - this.data.newest;
    const stays = this.cursor !== null && data.span === this.data.span && passed >= 0 && passed <= this.cursor;
    this.cursor = stays ? this.cursor - (data.rows.length < data.length ? 0 : passed) : null;
    this.data = data;
    this.draw();
  }

  value(curve, row) {
    return curve.level ? row[curve.column] : row[curve.column] / this.data.span;
  }

  x(place) {
    const { rows, length } = this.data;
    const slot = length - rows.length + place;
    return LEFT + (slot / Math.max(length - 1, 1)) * (this.width - LEFT);
  }

  y(value) {
    return this.height - BOTTOM - (value / this.top) * (this.height - BOTTOM - TOP);
  }

  draw() {
    const { rows } = this.data;
    this.width = this.picture.clientWidth || 300;
    this.height = this.picture.clientHeight || 120;
    const values = this.curves.map((curve) => rows.map((row) => this.value(curve, row)));
    this.top = ceiling(values.flat().reduce((most, value) => Math.max(most, value), this.least), this.binary);
    this.picture.replaceChildren();
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    for (const part of [0, 0.5, 1]) {
      const y = this.y(this.top * part);
      svg("line", this.picture, { class: "grid", x1: LEFT, x2: this.width, y1: y, y2: y });
      const label = svg("text", this.picture, { x: LEFT - 5, y: y + 4, "text-anchor": "end" });
      label.textContent = part === 0 ? "0" : this.format(this.top * part);
    }
    this.drawTimes();
    if (!rows.length) {
      const note = svg("text", this.picture, { x: (LEFT + this.width) / 2, y: this.height / 2, "text-anchor": "middle" });
      note.textContent = "nothing yet";
    }
    this.curves.forEach((curve, at) => {
      const points = values[at].map((value, place) => `${this.x(place).toFixed(1)} ${this.y(value).toFixed(1)}`);
      if (points.length) {
        const line = `M${points.join("L")}`;
        const ends = `L${this.x(points.length - 1)} ${this.y(0)}L${this.x(0)} ${this.y(0)}Z`;
        svg("path", this.picture, { class: `area ${curve.look}`, d: line + ends });
        svg("path", this.picture, { class: `curve ${curve.look}`, d: line });
      }
    });
    this.drawCursor();
  }

  drawTimes() {
    const { length, span, time } = this.data;
    const whole = (length - 1) * span;
    const step = TIME_STEPS.find((each) => whole / each <= this.width / TIME_WIDTH) ?? whole;
    // Round times of the browser's zone.
    const zone = new Date(time * 1000).getTimezoneOffset() * 60;
    for (let at = Math.floor((time - zone) / step) * step + zone; at > time - whole; at -= step) {
      const x = this.width - ((time - at) / whole) * (this.width - LEFT);
      if (x > LEFT + TIME_WIDTH / 4 && x < this.width - TIME_WIDTH / 4) {
        svg("line", this.picture, { class: "grid", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM });
        const label = svg("text", this.picture, { x, y: this.height - 3, "text-anchor": "middle" });
        label.textContent = clock(at, false);
      }
    }
  }

  // The values at the cursor, or the newest ones.
  drawCursor() {
    const { rows, span, time } = this.data;
    const last = rows.length - 1;
    const place = this.cursor === null ? last : Math.min(this.cursor, last);
    const row = rows[place];
    this.time.textContent = row && this.cursor !== null ? clock(time - (last - place) * span, true) : "";
    const shown = this.curves.map((curve, at) => {
      const text = row ? `${curve.name} ${this.format(this.value(curve, row))}` : "";
      this.values[at].textContent = text;
      return text;
    });
    this.picture.setAttribute("aria-label", `${[this.title, this.time.textContent].filter(Boolean).join(" ")}: ${shown.join(", ")}`);
    if (row && this.cursor !== null) {
      const x = this.x(place);
      svg("line", this.picture, { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM });
    }
  }

  // Sets the cursor to a row; null: to none.
  read(place) {
    if (place !== this.cursor) {
      this.cursor = place;
      this.draw();
    }
  }

  pointAt(event) {
    const { rows, length } = this.data;
    const part = (event.offsetX - LEFT) / (this.width - LEFT);
    const place = Math.round(part * (length - 1)) - (length - rows.length);
    this.read(rows.length ? Math.min(Math.max(place, 0), rows.length - 1) : null);
  }

  onKey(event) {
    const last = this.data.rows.length - 1;
    const at = this.cursor ?? last;
    const page = Math.max(1, Math.round(this.data.length / 20));
    const places = {
      ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page, Home: 0, End: last, Escape: null,
    };
    if (event.key in places && last >= 0) {
      const place = places[event.key];
      this.read(place === null ? null : Math.min(Math.max(place, 0), last));
      event.preventDefault();
    }
  }
}
