// Talks to the gateway. Every changing request has the header that a form of another page cannot send.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "the gateway does not answer");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, answer.error ?? `the gateway answered ${response.status}`);
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
