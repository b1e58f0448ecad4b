// Numbers, times and states as people read them. What is not known is a dash, never 0.

export const DASH = "–";

export const number = (value, digits) => (value === null || value === undefined ? DASH : value.toFixed(digits));

export function energy(wattHours) {
  if (wattHours === null || wattHours === undefined) return [DASH, "Wh"];
  return wattHours >= 1000 ? [(wattHours / 1000).toFixed(2), "kWh"] : [wattHours.toFixed(0), "Wh"];
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 100) return `${whole} s`;
  if (whole < 100 * 60) return `${Math.floor(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

const timeOfDay = (moment) => moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export function dateAndTime(milliseconds) {
  const moment = new Date(milliseconds);
  return `${moment.toLocaleDateString([], { day: "numeric", month: "short" })}, ${timeOfDay(moment)}`;
}

// The time, and the date if it is not today.
export function clock(milliseconds) {
  const moment = new Date(milliseconds);
  const today = new Date().toDateString() === moment.toDateString();
  return today ? timeOfDay(moment) : dateAndTime(milliseconds);
}

export const STATES = { charging: "Charging", full: "Battery full", idle: "Not charging" };

export const FAULTS = {
  overload: "Overload: the load draws too much",
  load_short_circuit: "The load is short-circuited",
  battery_over_voltage: "Battery voltage too high",
  over_discharge: "Battery too low, load cut off",
};
