-- What wrk asks for, and what it tells. `-- N` after wrk's own arguments makes every request an upload of N bytes.

function init(args)
    if args[1] then
        wrk.method = "POST"
        wrk.body = string.rep("u", tonumber(args[1]))
        wrk.headers["Content-Type"] = "application/octet-stream"
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'result {"requests": %d, "bytes": %d, "duration": %d, "p50": %d, "p99": %d, "p100": %d, ' ..
        '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
        summary.requests, summary.bytes, summary.duration,
        latency:percentile(50), latency:percentile(99), latency.max,
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
