// Talks to the gateway. Every changing request has the header that a form of another page cannot send.

export class ApiError extends Error {
  // *code*: what the gateway says about a load that was not confirmed as switched: "not_switched" or "unknown".
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }

  // Whether the gateway certainly did not do what was asked. Without an answer of its own it may have done it.
  get certain() {
    return this.code === "not_switched" || (this.status >= 400 && this.status < 500);
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "the gateway does not answer");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    throw new ApiError(response.status, answer?.error ?? `the gateway answered ${response.status}`, answer?.code);
  }
  if (answer === null) throw new ApiError(0, "the gateway's answer is not complete");
  return answer;
}

function change(method, path, body) {
  const headers = { "X-Tracer-Async": "1", "Content-Type": "application/json" };
  return request(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

const encoded = encodeURIComponent;

export const getSession = () => request("/api/session");
export const logIn = (token) => change("POST", "/api/session", { token });
export const logOut = () => change("DELETE", "/api/session");
export const getControllers = async () => (await request("/api/controllers")).controllers;
export const switchLoad = (name, on) => change("POST", `/api/controllers/${encoded(name)}/load`, { on });
export const getHistory = (name, from, to, step) =>
  request(`/api/controllers/${encoded(name)}/history?from=${from}&to=${to}&step=${step}`);
export const getEnergy = async (name) => (await request(`/api/controllers/${encoded(name)}/energy`)).days;
