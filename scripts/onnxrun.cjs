// Runs an ONNX model once: onnxrun.cjs FOLDER. request.json in FOLDER names the model, the feeds (name, type, dims, file of raw
// little-endian elements) and the outputs wanted; each output becomes a file of raw elements, answer.json names them.
const fs = require("fs"), path = require("path");
const { createRequire } = require("module");

function runtime(places) {
  for (const place of places) {
    try {
      return createRequire(path.join(place, "x.js"))("onnxruntime-node");
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  process.stderr.write("onnxruntime-node is not installed\n");
  process.exit(3);
}

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int64: BigInt64Array, uint64: BigUint64Array, int32: Int32Array,
  uint32: Uint32Array, int16: Int16Array, uint16: Uint16Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};

async function main(folder) {
  const request = JSON.parse(fs.readFileSync(path.join(folder, "request.json")));
  const ort = runtime(request.places);
  const session = await ort.InferenceSession.create(request.model, {
    logSeverityLevel: 4, graphOptimizationLevel: "basic", intraOpNumThreads: request.threads, interOpNumThreads: 1 });
  const feeds = {};
  for (const { name, type, dims, file } of request.feeds) {
    const bytes = fs.readFileSync(path.join(folder, file));
    const Elements = ARRAYS[type];
    const own = new Uint8Array(bytes);  // aligned
    feeds[name] = new ort.Tensor(type, new Elements(own.buffer, 0, own.byteLength / Elements.BYTES_PER_ELEMENT), dims);
  }
  const results = await session.run(feeds, request.outputs);
  const outputs = request.outputs.map((name, i) => {
    const { type, dims, data } = results[name];
    const file = `output${i}`;
    fs.writeFileSync(path.join(folder, file), Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    return { name, type, dims, file };
  });
  fs.writeFileSync(path.join(folder, "answer.json"), JSON.stringify(outputs));
}

main(process.argv[2]).catch((error) => {
  process.stderr.write(String(error && error.message || error) + "\n");
  process.exit(1);
});
