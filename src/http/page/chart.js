// A line chart of the last 15 minutes, drawn as SVG in the pixels that it has, so that its text never scales.

const SECONDS_SHOWN = 900;
const MARGIN = { top: 8, right: 2, bottom: 20, left: 2 };

/** A point further than this from its neighbor is not joined to it: nothing is known about the time between. */
const GAP_SECONDS = 12;

/** The least of the steps that holds the value; beyond them, powers of ten times 1, 2 or 5. */
function roof(value, steps) {
  const step = steps.find((one) => one >= value);
  if (step) return step;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= value);
}

const COUNT_STEPS = [10];
const TIME_STEPS = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

class Chart {
  /** `series`: `{ key, name, tone }`, the first is filled; `format` writes a value, `steps` are the ends of the scale. */
  constructor(plot, { title, series, format, steps }) {
    Object.assign(this, { plot, title, series, format, steps, points: [], cursor: null, drawnAt: Date.now(), asOf: null });
    this.svg = svg("svg", { role: "img", tabindex: "0" });
    this.readout = element("div", { class: "readout", hidden: true, "aria-live": "polite" });
    plot.append(this.svg, this.readout);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.show(null));
    this.svg.addEventListener("blur", () => this.show(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(plot);
  }

  /** Takes the history, oldest first. */
  set(points) {
    this.points = points.filter(({ age_seconds: age }) => age <= SECONDS_SHOWN);
    this.drawnAt = Date.now();
    this.asOf = null;
    this.draw();
  }

  /** Says at what time the line ends, where that is no longer now. */
  freeze(asOf) {
    this.asOf = asOf;
    this.draw();
  }

  x(point) {
    const width = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + width * (1 - point.age_seconds / SECONDS_SHOWN);
  }

  y(value) {
    const height = this.height - MARGIN.top - MARGIN.bottom;
    return MARGIN.top + height * (1 - value / this.top);
  }

  draw() {
    this.width = this.plot.clientWidth;
    this.height = this.plot.clientHeight;
    const values = this.points.flatMap((point) => this.series.map(({ key }) => point[key] ?? 0));
    this.top = roof(Math.max(0, ...values) || 1, this.steps);
    const drawn = [...this.axes(), ...this.series.flatMap((series, index) => this.lines(series, index === 0))];
    this.mark = svg("line", { class: "cursor", y1: MARGIN.top, y2: this.height - MARGIN.bottom, visibility: "hidden" });
    this.svg.replaceChildren(...drawn, this.mark);
    const last = this.points.at(-1);
    const said = last ? this.series.map(({ key, name }) => `${name} ${this.format(last[key])}`).join(", ") : "nothing known yet";
    this.svg.setAttribute("aria-label", `${this.title} over ${this.asOf === null ? "the last 15 minutes, now" : `the 15 minutes until ${this.asOf}, then`} ${said}. Arrow keys read single moments.`);
    if (this.cursor !== null) this.show(Math.min(this.cursor, this.points.length - 1));
  }

  axes() {
    const right = this.width - MARGIN.right;
    const base = this.height - 5;
    const grid = [0, this.top / 2, this.top].flatMap((value) => {
      const y = Math.round(this.y(value));
      const line = svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y });
      // The base line needs no label, and a chart without a point has no scale.
      return value === 0 || this.points.length === 0 ? [line] : [line, svg("text", { x: MARGIN.left, y: y + 12 }, this.format(value))];
    });
    const labels = [[900, this.asOf === null ? "15 min ago" : "15 min", "start"], [600, "10 min", "middle"], [300, "5 min", "middle"], [0, this.asOf ?? "now", "end"]];
    const times = labels.map(([age, text, anchor]) => svg("text", { x: this.x({ age_seconds: age }), y: base, "text-anchor": anchor }, text));
    return [...grid, ...times];
  }

  /** One series as joined runs of points, broken where nothing is known. A second series that is all zero would only hide the first. */
  lines({ key, tone }, isFilled) {
    const runs = [];
    if (!isFilled && !this.points.some((point) => point[key] > 0)) return runs;
    let before = null;
    for (const point of this.points) {
      if (point[key] === null || point[key] === undefined) {
        before = null;
        continue;
      }
      if (before === null || before.age_seconds - point.age_seconds > GAP_SECONDS) runs.push([]);
      runs.at(-1).push([this.x(point).toFixed(1), this.y(point[key]).toFixed(1)]);
      before = point;
    }
    const base = this.y(0).toFixed(1);
    return runs.flatMap((run) => {
      const [[first, y], [last]] = [run[0], run.at(-1)];
      // No line leads to a single point, so it is drawn itself.
      if (run.length === 1) return [svg("circle", { class: `point series-${tone}`, cx: first, cy: y, r: 3 })];
      const path = `M${run.map((one) => one.join(" ")).join("L")}`;
      const line = svg("path", { class: `line series-${tone}`, d: path });
      if (!isFilled) return [line];
      return [svg("path", { class: `area series-${tone}`, d: `${path}L${last} ${base}L${first} ${base}Z` }), line];
    });
  }

  point(event) {
    const at = event.clientX - this.svg.getBoundingClientRect().left;
    const distances = this.points.map((point) => Math.abs(this.x(point) - at));
    this.show(distances.length ? distances.indexOf(Math.min(...distances)) : null);
  }

  step(event) {
    const last = this.points.length - 1;
    const from = this.cursor ?? last + 1;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.show(to === null || last < 0 ? null : Math.max(0, Math.min(to, last)));
  }

  /** Shows what the point says, or nothing. */
  show(index) {
    this.cursor = index;
    this.readout.hidden = index === null;
    this.mark.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index === null) return;
    const point = this.points[index];
    const x = this.x(point);
    this.mark.setAttribute("x1", x);
    this.mark.setAttribute("x2", x);
    const time = clock.format(this.drawnAt - point.age_seconds * 1000);
    const lines = this.series.map(({ key, name, tone }) => element("span", { class: `series-${tone}` }, element("b", {}, this.format(point[key])), ` ${name}`));
    this.readout.replaceChildren(element("span", { class: "muted" }, time), ...lines);
    const room = this.width - this.readout.offsetWidth;
    this.readout.style.left = `${Math.max(0, Math.min(x > this.width / 2 ? x - this.readout.offsetWidth - 8 : x + 8, room))}px`;
  }
}
