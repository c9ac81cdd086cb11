/** An error with one of the stable codes; the message names the file, what was expected and what was found. */
export function failure(code, message, cause) {
  return Object.assign(new Error(message, { cause }), { code });
}

/** An error as it travels between threads. */
export const sendable = (error) => ({ code: error?.code ?? "internal", message: error?.message ?? String(error) });

export const isCode = (error) => typeof error?.code === "string";
