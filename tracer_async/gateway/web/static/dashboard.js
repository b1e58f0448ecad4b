// The page: which controllers there are, which page is shown, and the connection to the gateway.

import { ApiError, getControllers, getSession, logOut } from "./api.js";
import { Card } from "./card.js";
import { element, setText } from "./dom.js";
import { clock } from "./format.js";
import { History } from "./history.js";
import { LoadSwitch } from "./load_switch.js";
import { logInPage } from "./login.js";
import { Stream } from "./stream.js";

const RETRY = 5000;

const main = document.getElementById("content");
const connection = document.getElementById("connection");

const state = {
  session: null,
  controllers: new Map(),
  cards: new Map(),
  loadSwitches: new Map(),
  history: null,
  logIn: null,
  stream: null,
  lostAt: null,
};

// What is shown

function show() {
  closePage();
  const name = location.hash.replace(/^#\/?/, "");
  const controller = state.controllers.get(name);
  if (name === "log-in") showLogIn();
  else if (controller) showController(controller);
  else showOverview(name === "" ? "" : "There is no such controller.");
}

const isOnLogIn = () => location.hash === "#/log-in";

function closePage() {
  state.history?.close();
  state.history = null;
  state.cards.clear();
}

function makeCard(controller, options) {
  const card = new Card(controller, {
    canSwitch: state.session.switch,
    connected: state.lostAt === null,
    loadSwitch: loadSwitchOf(controller.name),
    ...options,
  });
  state.cards.set(controller.name, card);
  return card.root;
}

function showOverview(problem) {
  document.title = "Solar controllers";
  const cards = [...state.controllers.values()].map((controller) => element("li", {}, makeCard(controller, {})));
  main.replaceChildren(
    element("h1", { class: "hidden-text" }, "Solar controllers"),
    problem ? element("p", { class: "problem", role: "alert" }, problem) : "",
    cards.length ? element("ul", { class: "cards" }, cards) : element("p", { class: "notice" }, "No controllers are configured."),
    state.session.token_helps
      ? element("p", { class: "notice" }, "To switch a load, ", element("a", { href: "#/log-in" }, "log in with the switching token"), ".")
      : "",
  );
}

function showController(controller) {
  document.title = controller.title;
  main.replaceChildren(
    element("p", { class: "back" }, element("a", { href: "#/" }, "All controllers")),
    makeCard(controller, { heading: "h1", link: false }),
  );
  if (state.session.history) {
    state.history = new History(controller.name);
    main.append(state.history.root);
  }
}

function showLogIn() {
  closePage();
  document.title = "Log in";
  const done = async () => {
    // Without an event: `start` shows the page.
    window.history.replaceState(null, "", "#/");
    await start();
    main.focus();
  };
  // A half entered token stays.
  const stays = state.logIn?.root.isConnected;
  if (!stays) {
    state.logIn = logInPage({ done });
    main.replaceChildren(state.logIn.root);
  }
  state.logIn.back.hidden = !state.session?.read;
  if (!stays || document.activeElement === document.body) state.logIn.field.focus();
}

// The states of the controllers

// Keep a state, also of a controller that is not shown.
function keep(controller) {
  state.controllers.set(controller.name, controller);
  loadSwitchOf(controller.name).note(controller);
}

function loadSwitchOf(name) {
  if (!state.loadSwitches.has(name)) {
    const changed = (confirmed) => {
      // It may have been removed meanwhile.
      if (confirmed && state.controllers.has(name)) receive(confirmed);
      else state.cards.get(name)?.render(state.lostAt === null);
    };
    state.loadSwitches.set(name, new LoadSwitch(changed));
  }
  return state.loadSwitches.get(name);
}

function receive(controller, delay = 0) {
  const known = state.controllers.has(controller.name);
  keep(controller);
  if (known) state.cards.get(controller.name)?.update(controller, delay);
  else show();
}

// The connection to the gateway

function openStream() {
  state.stream?.close();
  let before = false;
  state.stream = new Stream({
    opened: () => {
      setConnected(true);
      // The gateway may have been away, and have another configuration now.
      if (before) reload();
      before = true;
    },
    lost: () => setConnected(false),
    refused: () => setTimeout(start, 1000),
    controller: receive,
    removed: (name) => {
      if (state.controllers.delete(name)) show();
    },
  });
}

function setConnected(connected) {
  if (connected) state.lostAt = null;
  else state.lostAt ??= Date.now();
  connection.hidden = connected;
  setText(connection, connected ? "" : `No connection to the gateway since ${clock(state.lostAt)}. Trying again.`);
  render();
}

function render() {
  for (const card of state.cards.values()) card.render(state.lostAt === null);
}

// Fetch everything again. The page stays as it is, unless there are other controllers or rights than before.
async function reload() {
  const shape = () => JSON.stringify([state.session, [...state.controllers.keys()]]);
  const before = shape();
  if (!(await fetchState())) return;
  if (shape() !== before) show();
  else for (const controller of state.controllers.values()) state.cards.get(controller.name)?.update(controller);
  state.history?.refresh();
}

// Return whether the gateway answered, and this client may read.
async function fetchState() {
  try {
    state.session = await getSession();
    document.getElementById("log-out").hidden = !state.session.logged_in;
    if (state.session.read) {
      const controllers = await getControllers();
      state.controllers.clear();
      controllers.forEach(keep);
      return true;
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status !== 401) {
      setConnected(false);
      setTimeout(start, RETRY);
      return false;
    }
  }
  state.stream?.close();
  state.stream = null;
  state.controllers.clear();
  setConnected(true);
  showLogIn();
  return false;
}

let starting = null;

// Fetch everything, show it, and open the stream.
function start() {
  starting ??= (async () => {
    if (await fetchState()) {
      setConnected(true);
      show();
      openStream();
    }
  })().finally(() => { starting = null; });
  return starting;
}

// Events of the page

document.getElementById("log-out").addEventListener("click", async () => {
  await logOut().catch(() => {});
  await start();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which page is shown
  main.focus();
});
window.addEventListener("hashchange", () => {
  if (!state.session?.read) return;
  show();
  if (!isOnLogIn()) main.focus();
  window.scrollTo(0, 0);
});
setInterval(() => {
  state.stream?.check();
  render();
}, 1000);
start();
