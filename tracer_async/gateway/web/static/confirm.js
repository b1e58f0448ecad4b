// The question before a load is switched.

import { setText } from "./dom.js";

// Resolves to whether the answer is yes. Esc and "Cancel" are no.
export function confirmSwitch(title, on) {
  const dialog = document.getElementById("confirm");
  setText(document.getElementById("confirm-question"), `Switch ${on ? "on" : "off"} the load of ${title}?`);
  setText(
    document.getElementById("confirm-detail"),
    on ? "Everything that is connected to the load output gets power." : "Everything that is connected to the load output loses power.",
  );
  setText(document.getElementById("confirm-switch"), on ? "Switch on" : "Switch off");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "switch"), { once: true });
  });
}
