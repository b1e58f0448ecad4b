// Charts as SVG: a line with its range for each quantity, and bars by day. Mouse, touch and the arrow keys show values.

import { element, setText, svg } from "./dom.js";
import { clock, dateAndTime, number } from "./format.js";
import { niceTicks, timeLabel, timeTicks } from "./scale.js";

const DAY = 86_400;
const HEIGHT = 192;
const MARGIN = { left: 44, right: 8, top: 8, bottom: 22 };

// A panel with a heading, a legend, the picture, the values at the cursor, and the same values as a table.
function panel({ title, unit, legend, count, valuesAt, draw, head, rows }) {
  const picture = svg("svg", { class: "chart", "aria-hidden": "true", preserveAspectRatio: "none" });
  const values = element("p", { class: "values-at", "aria-live": "polite" });
  const box = element(
    "div",
    { role: "group", tabindex: "0", "aria-label": `Chart: ${title}. The arrow keys show values.` },
    picture,
  );
  let width = 0;
  let cursor = null;
  let geometry = null;

  function show(index) {
    cursor = Math.min(Math.max(index, 0), count - 1);
    setText(values, valuesAt(cursor));
    const x = geometry.x(cursor);
    geometry.line.setAttribute("x1", x);
    geometry.line.setAttribute("x2", x);
    geometry.line.removeAttribute("visibility");
  }

  function redraw() {
    picture.replaceChildren();
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    geometry = draw(picture, width);
    geometry.line = svg("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    picture.append(geometry.line);
    if (cursor !== null) show(cursor);
    else setText(values, valuesAt(count - 1));
  }

  const point = (event) => {
    const place = event.clientX - picture.getBoundingClientRect().left;
    show(geometry.nearest(place));
  };
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerdown", point);
  box.addEventListener("keydown", (event) => {
    const at = cursor ?? count;
    const target = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: count - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    show(target);
  });
  new ResizeObserver(() => {
    if (box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      redraw();
    }
  }).observe(box);

  const table = element("details", {}, element("summary", {}, "Values as a table"));
  table.addEventListener("toggle", () => {
    if (!table.open || table.childElementCount > 1) return;
    const header = element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)));
    const body = rows().map((row) => element("tr", {}, row.map((text) => element("td", {}, text))));
    table.append(
      element(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${title}` },
        element("table", {}, element("thead", {}, header), element("tbody", {}, body)),
      ),
    );
  });
  return element(
    "section",
    { class: "panel" },
    element(
      "div",
      { class: "heading" },
      element("h3", {}, `${title} (${unit})`),
      legend.length > 1 ? element("ul", { class: "legend" }, legend.map(([text, color]) => element("li", { class: color }, text))) : null,
    ),
    values,
    box,
    table,
  );
}

function axis(picture, width, low, high) {
  const { ticks, digits } = niceTicks(low, high, 4);
  const [bottom, top] = [ticks[0], ticks[ticks.length - 1]];
  const y = (value) => MARGIN.top + ((top - value) / (top - bottom)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  for (const tick of ticks) {
    picture.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: MARGIN.left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits)),
    );
  }
  return y;
}

// Indices of points that follow each other without a gap.
function runs(time, step) {
  const found = [];
  time.forEach((moment, index) => {
    if (index && moment - time[index - 1] < step * 1.6) found[found.length - 1].push(index);
    else found.push([index]);
  });
  return found;
}

export function lineChart({ title, unit, digits, zero, from, to, time, step, lines }) {
  const draw = (picture, width) => {
    const x = (seconds) => MARGIN.left + ((seconds - from) / (to - from)) * (width - MARGIN.left - MARGIN.right);
    const low = Math.min(...lines.map((line) => line.values.min.reduce((a, b) => Math.min(a, b), Infinity)));
    const high = Math.max(...lines.map((line) => line.values.max.reduce((a, b) => Math.max(a, b), -Infinity)));
    const y = axis(picture, width, zero ? Math.min(low, 0) : low, high);
    const { ticks, days } = timeTicks(from, to, Math.max(2, Math.floor(width / 90)));
    for (const tick of ticks) {
      if (x(tick) > width - 24) continue;
      picture.append(
        svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: HEIGHT - MARGIN.bottom, y2: HEIGHT - MARGIN.bottom + 4 }),
        svg("text", { x: x(tick), y: HEIGHT - 6, "text-anchor": "middle" }, timeLabel(tick, days)),
      );
    }
    const middle = (index) => x(Math.min(time[index] + step / 2, to));
    for (const { values, color } of lines) {
      for (const run of runs(time, step)) {
        const place = (kind) => (index) => `${middle(index).toFixed(1)},${y(values[kind][index]).toFixed(1)}`;
        const area = [...run.map(place("max")), ...run.toReversed().map(place("min"))];
        const line = run.map(place("mean"));
        picture.append(
          svg("polygon", { class: `range ${color}`, points: area.join(" ") }),
          svg("polyline", { class: `line ${color}`, points: (line.length > 1 ? line : [line[0], line[0]]).join(" "), "stroke-linecap": "round" }),
        );
      }
    }
    const nearest = (place) =>
      time.reduce((best, _, index) => (Math.abs(middle(index) - place) < Math.abs(middle(best) - place) ? index : best), 0);
    return { x: middle, nearest };
  };
  const text = (values, index) => {
    const [min, mean, max] = ["min", "mean", "max"].map((kind) => number(values[kind][index], digits));
    return min === max ? `${mean} ${unit}` : `${mean} ${unit} (${min} to ${max})`;
  };
  const when = (index) => (to - from > DAY ? dateAndTime : clock)(time[index] * 1000);
  return panel({
    title,
    unit,
    legend: lines.map((line) => [line.label, line.color]),
    count: time.length,
    valuesAt: (index) => `${when(index)}: ${lines.map((line) => `${lines.length > 1 ? `${line.label} ` : ""}${text(line.values, index)}`).join(", ")}`,
    draw,
    head: ["Time", ...lines.map((line) => `${line.label} (${unit})`)],
    rows: () => time.map((_, index) => [when(index), ...lines.map((line) => number(line.values.mean[index], digits))]),
  });
}

const kiloWattHours = (wattHours) => number(wattHours === null ? null : wattHours / 1000, 2);

export function energyChart({ days }) {
  const kinds = [
    ["charge", "Charged", "charge"],
    ["load", "Used", "load-color"],
  ];
  const dayLabel = (day) => new Date(`${day}T12:00:00`).toLocaleDateString([], { day: "numeric", month: "short" });
  const draw = (picture, width) => {
    const y = axis(picture, width, 0, Math.max(...days.flatMap((day) => [day.charge, day.load]), 1) / 1000);
    const slot = (width - MARGIN.left - MARGIN.right) / days.length;
    const bar = Math.min(slot * 0.38, 28);
    const middle = (index) => MARGIN.left + (index + 0.5) * slot;
    const every = Math.ceil(days.length / Math.max(2, Math.floor(width / 60)));
    days.forEach((day, index) => {
      kinds.forEach(([kind, , color], place) => {
        if (day[kind] === null) return;
        const top = y(day[kind] / 1000);
        picture.append(svg("rect", { class: `bar ${color}`, x: middle(index) + (place - 1) * bar, width: Math.max(bar - 1, 1), y: top, height: y(0) - top }));
      });
      if (index % every === 0) {
        picture.append(svg("text", { x: middle(index), y: HEIGHT - 6, "text-anchor": "middle" }, dayLabel(day.day)));
      }
    });
    return { x: middle, nearest: (place) => Math.round((place - MARGIN.left) / slot - 0.5) };
  };
  return panel({
    title: "Energy by day",
    unit: "kWh",
    legend: kinds.map(([, label, color]) => [label, color]),
    count: days.length,
    valuesAt: (index) => `${dayLabel(days[index].day)}: ${kinds.map(([kind, label]) => `${label} ${kiloWattHours(days[index][kind])} kWh`).join(", ")}`,
    draw,
    head: ["Day", ...kinds.map(([, label]) => `${label} (kWh)`)],
    rows: () => days.map((day) => [dayLabel(day.day), ...kinds.map(([kind]) => kiloWattHours(day[kind]))]),
  });
}
