// Values that this tab keeps until it is closed; without storage (full, or blocked) there are none.

export function stored(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`oceano:${name}`));
  } catch {
    return null;
  }
}

export function store(name, value) {
  try {
    sessionStorage.setItem(`oceano:${name}`, JSON.stringify(value));
  } catch {
    // what is not kept begins anew
  }
}
