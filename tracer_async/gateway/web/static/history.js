// The charts of one controller's page.

import { ApiError, getEnergy, getHistory } from "./api.js";
import { energyChart, lineChart } from "./chart.js";
import { element } from "./dom.js";

const HOUR = 3600;
const RANGES = [
  ["6 hours", 6 * HOUR, 60],
  ["Day", 24 * HOUR, 300],
  ["Week", 7 * 24 * HOUR, 1800],
  ["Month", 30 * 24 * HOUR, 7200],
];
const REFRESH = 60_000;

export class History {
  constructor(name) {
    this.name = name;
    this.range = 0;
    this.choice = 0;
    this.buttons = RANGES.map(([label], index) =>
      element("button", { type: "button", "aria-pressed": String(index === 0), onclick: () => this.choose(index) }, label),
    );
    this.charts = element("div", { class: "panels" });
    this.bars = element("div", { class: "panels" });
    this.root = element(
      "section",
      { "aria-labelledby": "history" },
      element("h2", { id: "history" }, "History"),
      element("div", { class: "buttons ranges", role: "group", "aria-label": "Time range" }, this.buttons),
      this.charts,
      this.bars,
    );
    this.timer = setInterval(() => this.refresh(), REFRESH);
    this.load();
    this.loadEnergy();
  }

  close() {
    clearInterval(this.timer);
    this.closed = true;
  }

  choose(index) {
    this.range = index;
    this.choice += 1;
    this.buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === index)));
    this.load();
  }

  refresh() {
    // Not while somebody reads values or a table: they would vanish.
    if (this.root.contains(document.activeElement) && document.activeElement.closest(".panel")) return;
    if (this.root.querySelector("details[open]") || document.hidden) return;
    this.load();
    this.loadEnergy();
  }

  async load() {
    const [, span, step] = RANGES[this.range];
    const { choice } = this;
    const to = Math.floor(Date.now() / 1000);
    const from = to - span;
    await this.fill(this.charts, async () => {
      const answer = await getHistory(this.name, from, to, step);
      if (answer.time.length === 0) return [notice("No readings in this time.")];
      const common = { from, to, time: answer.time, step: answer.step };
      return [
        lineChart({
          ...common,
          title: "Power",
          unit: "W",
          digits: 0,
          zero: true,
          lines: [
            { label: "Charging", color: "charge", values: answer.charge_power },
            { label: "Load", color: "load-color", values: answer.load_power },
          ],
        }),
        lineChart({
          ...common,
          title: "Battery voltage",
          unit: "V",
          digits: 2,
          lines: [{ label: "Battery", color: "voltage", values: answer.battery_voltage }],
        }),
        lineChart({
          ...common,
          title: "Battery temperature",
          unit: "°C",
          digits: 0,
          lines: [{ label: "Battery", color: "temperature", values: answer.battery_temperature }],
        }),
      ];
    }, () => choice === this.choice);
  }

  loadEnergy() {
    return this.fill(this.bars, async () => {
      const days = await getEnergy(this.name);
      return days.length ? [energyChart({ days: withoutGaps(days) })] : [];
    });
  }

  // *isWanted*: whether the answer, or the error, is still that of what is shown.
  async fill(place, make, isWanted = () => true) {
    let content;
    try {
      content = await make();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      content = [notice(error.status === 404 ? "No history is configured." : `No history: ${error.message}.`)];
    }
    if (isWanted() && !this.closed) place.replaceChildren(...content);
  }
}

// A day without a record gets a place of its own, without bars.
function withoutGaps(days) {
  const known = new Map(days.map((day) => [day.day, day]));
  const filled = [];
  const last = Date.parse(days[days.length - 1].day);
  for (let moment = Date.parse(days[0].day); moment <= last; moment += 24 * HOUR * 1000) {
    const day = new Date(moment).toISOString().slice(0, 10);
    filled.push(known.get(day) ?? { day, charge: null, load: null });
  }
  return filled;
}

const notice = (text) => element("p", { class: "notice" }, text);
