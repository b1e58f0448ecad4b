// The stream of states. It notices a connection that is dead without an error, and messages that come late, as they do
// after the computer has slept. In both cases it opens a new stream.

import { secondsSince, stamp } from "./time.js";

// The gateway sends something every 15 s.
const LONGEST_SILENCE = 40;
const LONGEST_DELAY = 10;

export class Stream {
  // on: opened(), lost(), refused(), controller(state, delay in seconds), removed(name)
  constructor(on) {
    this.on = on;
    this.open();
  }

  open() {
    this.source?.close();
    const source = new EventSource("/api/events");
    this.source = source;
    this.heard = stamp();
    this.leastOffset = Infinity;
    source.addEventListener("open", () => {
      this.leastOffset = Infinity;
      this.heard = stamp();
      this.on.opened();
    });
    source.addEventListener("error", () => {
      this.on.lost();
      // The browser reconnects unless the gateway refused the stream, for example because the session has ended.
      if (source.readyState === EventSource.CLOSED) this.on.refused();
    });
    source.addEventListener("alive", (event) => this.receive(event, () => {}));
    source.addEventListener("controller", (event) => this.receive(event, (state, delay) => this.on.controller(state, delay)));
    source.addEventListener("removed", (event) => this.receive(event, ({ name }) => this.on.removed(name)));
  }

  close() {
    this.source.close();
  }

  // The ID of a message is the gateway's time. The difference of the two clocks does not matter, only its growth does.
  receive(event, use) {
    if (event.target !== this.source) return;
    this.heard = stamp();
    const offset = Date.now() / 1000 - Number(event.lastEventId);
    this.leastOffset = Math.min(this.leastOffset, offset);
    const delay = offset - this.leastOffset;
    if (delay > LONGEST_DELAY) this.restart();
    else use(JSON.parse(event.data), delay);
  }

  // To be called every second.
  check() {
    if (secondsSince(this.heard) > LONGEST_SILENCE) this.restart();
  }

  restart() {
    this.on.lost();
    this.open();
  }
}
