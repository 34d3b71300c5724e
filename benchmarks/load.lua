-- The load that wrk makes: the same request again and again, and one line of JSON at the end.
-- The token comes by the environment: a command line can be read by everybody on the machine.
wrk.method = "POST"
wrk.body = '{"text":"hello"}'
wrk.headers["Content-Type"] = "application/json"
local token = os.getenv("BENCHMARK_TOKEN")
if token and token ~= "" then
  wrk.headers["Authorization"] = "Bearer " .. token
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"p50_microseconds":%d,"p99_microseconds":%d,"failures":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
