// The card of one controller: its values, its state and faults in words, how fresh they are, and its load switch.

import { confirmSwitch } from "./confirm.js";
import { element, setText } from "./dom.js";
import { DASH, FAULTS, STATES, clock, duration, energy, number } from "./format.js";
import { secondsSince, stamp } from "./time.js";

const VALUES = [
  ["battery", "Battery", ""],
  ["charge", "Charging", ""],
  ["load", "Load", ""],
  ["chargedToday", "Charged today", "minor"],
  ["usedToday", "Used today", "minor"],
  ["temperature", "Battery temp.", "minor"],
];

export class Card {
  constructor(controller, { heading = "h2", link = true, canSwitch, connected, loadSwitch }) {
    this.title = link ? element("a", { href: `#/${controller.name}` }) : element("span");
    this.freshness = element("p", { class: "freshness" });
    this.shown = {};
    const values = VALUES.map(([key, label, kind]) => {
      this.shown[key] = element("dd");
      return element("div", { class: kind }, element("dt", {}, label), this.shown[key]);
    });
    this.chips = element("ul", { class: "chips", "aria-label": "State" });
    this.loadText = element("span");
    this.failureText = element("p", { class: "problem" });
    this.button = element("button", { type: "button", onclick: () => this.ask() });
    // A gateway that listens beside a meter sends nothing.
    this.button.hidden = !(canSwitch && controller.switchable);
    this.root = element(
      "article",
      { class: "card" },
      element("div", { class: "top" }, element(heading, {}, this.title), this.freshness),
      element("dl", { class: "values" }, values),
      element("div", { class: "bottom" }, this.chips, element("div", { class: "load" }, this.loadText, this.button)),
      this.failureText,
    );
    this.loadSwitch = loadSwitch;
    this.connected = connected;
    this.update(controller);
  }

  // *delay*: for how many seconds the message was on its way.
  update(controller, delay = 0) {
    this.controller = controller;
    this.delay = delay;
    this.received = stamp();
    this.render(this.connected);
  }

  render(connected) {
    this.connected = connected;
    const { controller } = this;
    const elapsed = this.delay + secondsSince(this.received);
    // null: the gateway does not know when the values were measured, only when they came.
    const age = controller.age === null ? null : controller.age + elapsed;
    // Without news for that long the values describe the past.
    const silent = elapsed > controller.lifetime;
    const current = connected && controller.online && !silent && (age === null || age <= controller.lifetime);
    this.root.classList.toggle("offline", !current);
    setText(this.title, controller.title);
    setText(this.freshness, this.freshnessText(current, silent, age, elapsed));
    this.renderValues(current ? controller.reading : null, connected && !silent ? controller.energy : null);
    this.renderChips(current);
    this.renderLoad(current ? controller.reading.load_on : undefined);
  }

  freshnessText(current, silent, age, elapsed) {
    const { controller } = this;
    if (current && age === null) return `read at ${clock(Date.parse(controller.time))}, age unknown`;
    if (current) return `${duration(age)} ago`;
    if (!this.connected) return "no connection to the gateway";
    if (controller.online) return `no reading for ${duration(age ?? elapsed)}`;
    if (silent) return "no news from the controller";
    if (controller.since === null) return controller.reason;
    return `offline since ${clock(Date.parse(controller.since))}: ${controller.reason}`;
  }

  renderValues(reading, totals) {
    const show = (key, [value, unit]) => {
      const node = this.shown[key];
      const text = value === DASH ? value : `${value} ${unit}`;
      if (node.textContent === text) return;
      node.replaceChildren(value);
      if (text !== value) node.append(element("small", {}, ` ${unit}`));
    };
    show("battery", [number(reading?.battery_voltage, 2), "V"]);
    show("charge", [number(reading?.charge_power, 0), "W"]);
    show("load", [number(reading?.load_power, 0), "W"]);
    show("temperature", [number(reading?.battery_temperature, 0), "°C"]);
    show("chargedToday", energy(totals?.charge_today));
    show("usedToday", energy(totals?.load_today));
  }

  renderChips(current) {
    const { state, faults } = this.controller;
    const words = current
      ? [[STATES[state], state === "idle" ? "" : "good"], ...faults.map((fault) => [FAULTS[fault] ?? fault, "bad"])]
      : [[this.connected ? "Offline" : "Unknown", "bad"]];
    const key = JSON.stringify(words);
    if (this.chipsKey === key) return;
    this.chipsKey = key;
    this.chips.replaceChildren(...words.map(([text, kind]) => element("li", { class: kind }, text)));
  }

  renderLoad(on) {
    const { switching, problem, unknown } = this.loadSwitch;
    const text = on === undefined || unknown ? "Load unknown" : `Load ${on ? "on" : "off"}`;
    setText(this.loadText, switching ? "Switching …" : text);
    setText(this.button, on === true ? "Switch off" : "Switch on");
    this.button.setAttribute("aria-label", `${on === true ? "Switch off" : "Switch on"} the load of ${this.controller.title}`);
    this.button.disabled = switching || on === undefined;
    setText(this.failureText, problem ?? "");
  }

  async ask() {
    const { controller } = this;
    const on = !controller.reading.load_on;
    if (!(await confirmSwitch(controller.title, on))) return;
    await this.loadSwitch.switch(controller, on);
    this.button.focus();
  }
}
