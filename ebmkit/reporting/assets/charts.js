"use strict";

// One chart for each metric, all over the same steps. Dragging over one zooms all of them.

const MARGIN = { left: 58, right: 10, top: 10, bottom: 24 };
const HEIGHT = 230;

function make(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function smoothed(values, weight) {
  // The mean of what came before, weights falling by `weight` from point to point; gaps stay gaps.
  let sum = 0, weights = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value;
    weights = weights * weight + 1;
    return sum / weights;
  });
}

class Chart {
  constructor(data, state, figure, number, onZoom) {
    Object.assign(this, { data, state, figure, number, onZoom });
    this.svg = figure.querySelector("svg");
    this.button = figure.querySelector("button");
    this.button.onclick = () => {
      if (!state.log.delete(data.name)) state.log.add(data.name);
      this.draw();
    };
    this.svg.onpointerdown = (event) => this.begin(event);
    this.svg.onpointermove = (event) => this.move(event);
    this.svg.onpointerup = (event) => this.end(event);
    this.svg.onpointercancel = this.svg.onpointerleave = () => this.leave();
    this.svg.ondblclick = () => onZoom(null);
  }

  lines() {
    const { hidden } = this.state, smooth = this.data.smooth && this.state.smooth;
    return this.data.lines
      .filter((line) => !hidden.has(line.run))
      .map((line) => ({ ...line, soft: smooth ? smoothed(line.values, smooth) : line.values }));
  }

  draw() {
    const [first, last] = this.state.range ?? this.state.whole;
    const log = this.state.log.has(this.data.name);
    this.button.setAttribute("aria-pressed", log);
    this.width = Math.max(200, this.svg.clientWidth || 400);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const lines = this.lines(), inside = [];
    for (const line of lines) {
      line.steps.forEach((step, i) => {
        if (step >= first && step <= last && line.values[i] !== null) inside.push(line.values[i]);
      });
    }
    const y = scale(inside, log);
    const width = this.width - MARGIN.left - MARGIN.right, height = HEIGHT - MARGIN.top - MARGIN.bottom;
    this.x = (step) => MARGIN.left + ((step - first) / (last - first || 1)) * width;
    this.step = (x) => first + ((x - MARGIN.left) / width) * (last - first);
    this.y = (value) => MARGIN.top + (1 - y.at(value)) * height;
    const parts = [];
    for (const value of y.ticks) {
      const at = this.y(value);
      parts.push(make("line", { class: "rule", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: at, y2: at }));
      parts.push(make("text", { class: "y tick", x: MARGIN.left - 7, y: at + 4, "text-anchor": "end" }, shown(value)));
    }
    const about = Math.max(3, Math.floor(width / 80));
    for (const value of last > first ? niceTicks(first, last, about) : [first]) {
      const text = make("text", { class: "x tick", x: this.x(value), y: HEIGHT - 6, "text-anchor": "middle" }, shownStep(value));
      parts.push(text);
    }
    const area = make("clipPath", { id: `clip-${this.number}` });
    area.append(make("rect", { x: MARGIN.left, y: 0, width, height: HEIGHT }));
    const inner = make("g", { "clip-path": `url(#clip-${this.number})` });
    for (const line of lines) {
      if (line.soft !== line.values) inner.append(this.path(line, line.values, "raw "));
      inner.append(this.path(line, line.soft, ""));
    }
    this.cross = make("line", { class: "cross", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    this.choice = make("rect", { class: "choice", y: MARGIN.top, height, width: 0 });
    this.svg.replaceChildren(area, ...parts, inner, this.cross, this.choice);
  }

  path(line, values, kind) {
    let d = "", pen = "M";
    line.steps.forEach((step, i) => {
      if (values[i] === null) {
        pen = "M";
        return;
      }
      d += `${pen}${this.x(step).toFixed(1)} ${this.y(values[i]).toFixed(1)}`;
      // A single point between gaps is a dot.
      if (pen === "M" && (values[i + 1] ?? null) === null) d += "h0.01";
      pen = "L";
    });
    const path = make("path", { class: `line ${kind}run-${line.run % 6}`, d, "stroke-linecap": "round" });
    const dashes = [line.dashed ? "5 4" : "", "9 3 2 3", "2 4"][Math.floor(line.run / 6) % 3];
    if (dashes) path.setAttribute("stroke-dasharray", dashes);
    return path;
  }

  place(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    return Math.min(Math.max(x, MARGIN.left), this.width - MARGIN.right);
  }

  begin(event) {
    if (event.button !== 0) return;
    this.from = this.place(event);
    this.svg.setPointerCapture(event.pointerId);
  }

  move(event) {
    const x = this.place(event);
    if (this.from !== undefined) {
      this.choice.setAttribute("x", Math.min(x, this.from));
      this.choice.setAttribute("width", Math.abs(x - this.from));
    }
    this.hover(event, x);
  }

  end(event) {
    const from = this.from, to = this.place(event);
    this.leave();
    if (from === undefined || Math.abs(to - from) < 6) return;
    const steps = [from, to].sort((a, b) => a - b).map((x) => Math.round(this.step(x)));
    if (steps[1] > steps[0]) this.onZoom(steps);
  }

  leave() {
    this.from = undefined;
    this.choice?.setAttribute("width", 0);
    this.cross?.setAttribute("visibility", "hidden");
    document.getElementById("hover").hidden = true;
  }

  hover(event, x) {
    const near = (steps) => steps.reduce((best, step, i) => (
      Math.abs(this.x(step) - x) < Math.abs(this.x(steps[best]) - x) ? i : best), 0);
    const lines = this.lines().filter((line) => line.steps.length);
    if (!lines.length) return;
    const step = lines[0].steps[near(lines[0].steps)];
    this.cross.setAttribute("x1", this.x(step));
    this.cross.setAttribute("x2", this.x(step));
    this.cross.setAttribute("visibility", "visible");
    const box = document.getElementById("hover"), rows = [document.createElement("div")];
    rows[0].textContent = `step ${shownStep(step)}`;
    for (const line of lines) {
      const row = document.createElement("div"), chip = document.createElement("span"), i = near(line.steps);
      chip.className = `chip run-${line.run % 6}`;
      row.append(chip, `${line.label}: ${shown(line.soft[i])}`);
      rows.push(row);
    }
    box.replaceChildren(...rows);
    box.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${Math.max(8, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8))}px`;
  }
}
