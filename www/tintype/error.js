/** What an operation rejects with: a stable `code`, and a message that names the file, the tensor or the option. */
export class TintypeError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.name = "TintypeError";
    this.code = code;
  }
}
