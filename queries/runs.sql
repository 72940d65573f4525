-- question: Which runs do these files hold?
-- columns: run, label, kind, model, format, weight_type, architecture, device, semantics, status, steps, rows (statistics), started, file
SELECT run, label, kind, model, format, weight_type, architecture, device, semantics, status, steps, rows, started, file
FROM runs
ORDER BY started, run
