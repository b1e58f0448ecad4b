// The page on which a token is entered.

import { ApiError, logIn } from "./api.js";
import { element, setText } from "./dom.js";

// Calls *done* after the gateway has accepted a token. The link *back* is for people who may read without one.
export function logInPage({ done }) {
  const field = element("input", {
    id: "token", type: "password", autocomplete: "current-password", required: true, "aria-describedby": "token-problem",
  });
  const problem = element("p", { id: "token-problem", class: "problem", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      await logIn(field.value);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setText(problem, `Not logged in: ${error.message}.`);
      field.setAttribute("aria-invalid", "true");
      field.select();
      return;
    }
    await done();
  };
  const back = element("a", { href: "#/", class: "button" }, "Back");
  const root = element(
    "form",
    { class: "panel log-in", onsubmit: submit },
    element("h1", {}, "Log in"),
    element("label", { for: "token" }, "Token from the gateway's configuration"),
    field,
    problem,
    element("div", { class: "buttons" }, element("button", { class: "primary" }, "Log in"), back),
  );
  return { root, field, back };
}
