-- The load that wrk makes: the same request again and again, and one line of JSON at the end.
-- The token comes by the environment: a command line can be read by everybody on the machine. The body comes in a file:
-- a variable holds 128 KiB at most (execve(2), MAX_ARG_STRLEN).
local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

wrk.method = "POST"
wrk.body = read(os.getenv("BENCHMARK_BODY"))
wrk.headers["Content-Type"] = "application/json"
local token = os.getenv("BENCHMARK_TOKEN")
if token and token ~= "" then
  wrk.headers["Authorization"] = "Bearer " .. token
end

-- errors.status counts what has a status of 400 and more.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"p50_microseconds":%d,"p99_microseconds":%d,"refused":%d,"failures":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
