// Figures as people read them. Sizes and times look like those of `client`.

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function size(bytes) {
  if (bytes < 1024) {
    return `${Math.round(bytes)} B`;
  }
  let unit = -1;
  do {
    bytes /= 1024;
    unit += 1;
  } while (bytes >= 1023.5 && unit + 1 < UNITS.length);
  return `${bytes < 99.95 ? bytes.toFixed(1) : bytes.toFixed(0)} ${UNITS[unit]}`;
}

export function rate(bytes) {
  return `${size(bytes)}/s`;
}

// Whole numbers with thin spaces between thousands; small ones that are not whole with two digits.
export function count(number) {
  if (number > 0 && number < 10 && !Number.isInteger(number)) {
    return number.toFixed(2);
  }
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function perSecond(number) {
  return `${count(number)}/s`;
}

export function micros(number) {
  if (number < 1000) {
    return `${Math.round(number)} µs`;
  }
  return number < 1e6 ? `${(number / 1000).toFixed(1)} ms` : `${(number / 1e6).toFixed(1)} s`;
}

export function age(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) {
    return whole < 10 ? `${seconds.toFixed(1)}s` : `${whole}s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  }
  if (whole < 86400) {
    return `${Math.floor(whole / 3600)}h${two(Math.floor(whole / 60) % 60)}m`;
  }
  return `${Math.floor(whole / 86400)}d${two(Math.floor(whole / 3600) % 24)}h`;
}

// Time of the day, of the browser's zone. `seconds` is UNIX time.
export function clock(seconds, withSeconds) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (withSeconds) {
    options.second = "2-digit";
  }
  return new Date(seconds * 1000).toLocaleTimeString("en-GB", options);
}

// A time stamp of the server, which is UTC, in the browser's zone: 11-27 14:03:20.
export function stamp(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) {
    return text;
  }
  const two = (number) => String(number).padStart(2, "0");
  return `${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(date.getTime() / 1000, true)}`;
}
