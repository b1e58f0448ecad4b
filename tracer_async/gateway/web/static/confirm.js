// The question before a load is switched.

import { setText } from "./dom.js";

// Answers the last question with no.
let withdraw = () => {};

// Resolves to whether the answer is yes. Esc and "Cancel" are no.
export function confirmSwitch(title, on) {
  withdraw();
  const dialog = document.getElementById("confirm");
  setText(document.getElementById("confirm-question"), `Switch ${on ? "on" : "off"} the load of ${title}?`);
  setText(
    document.getElementById("confirm-detail"),
    on ? "Everything that is connected to the load output gets power." : "Everything that is connected to the load output loses power.",
  );
  setText(document.getElementById("confirm-switch"), on ? "Switch on" : "Switch off");
  dialog.showModal();
  return new Promise((resolve) => {
    const listeners = new AbortController();
    const answer = (yes) => {
      listeners.abort();
      resolve(yes);
    };
    withdraw = () => answer(false);
    const { signal } = listeners;
    dialog.addEventListener("submit", (event) => answer(event.submitter.value === "switch"), { signal });
    // The event comes later than the end of the dialog. If it is open, the event is that of the question before.
    dialog.addEventListener("close", () => dialog.open || answer(false), { signal });
  });
}
