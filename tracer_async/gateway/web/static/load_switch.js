// The load switch of one controller: what was asked, and how it ended. It outlives the cards: the page may show another
// one, or none, when the gateway answers.

import { ApiError, switchLoad } from "./api.js";
import { setText } from "./dom.js";
import { secondsSince, stamp } from "./time.js";

const FAILURE_SECONDS = 60;
const UNKNOWN = "It is unknown whether the load was switched. The next reading shows it.";

export class LoadSwitch {
  // *changed*(controller): called after each change; with the controller's state if the gateway confirmed a switch.
  constructor(changed) {
    this.changed = changed;
    this.switching = false;
    this.readingTime = null;
    this.setFailure(null);
  }

  // Take note of a state of the controller, shown or not.
  note(controller) {
    // The same reading may come again, for example after the connection to the gateway was lost.
    if (controller.time === null || controller.time === this.readingTime) return;
    this.readingTime = controller.time;
    if (this.unknown) this.setFailure(null);
  }

  // Why the last switch failed; null after a minute. That it is unknown stays until there is another reading.
  get problem() {
    if (this.failure !== null && !this.unknown && secondsSince(this.failedAt) > FAILURE_SECONDS) this.setFailure(null);
    return this.failure;
  }

  setFailure(text, unknown = false) {
    this.failure = text;
    this.unknown = unknown;
    this.failedAt = stamp();
  }

  async switch({ title, name }, on) {
    this.switching = true;
    this.setFailure(null);
    this.changed(null);
    let confirmed = null;
    try {
      const answer = await switchLoad(name, on);
      confirmed = answer.controller;
      announce(`${title}: the controller confirms that the load is ${answer.load_on ? "on" : "off"}.`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.certain) this.setFailure(`Not switched: ${error.message}`);
      else this.setFailure(UNKNOWN, true);
      announce(`${title}: ${this.failure}`);
    } finally {
      this.switching = false;
      this.changed(confirmed);
    }
  }
}

function announce(text) {
  setText(document.getElementById("announcement"), text);
}
