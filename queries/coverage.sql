-- question: What was captured and what was not, and why?
-- parameter: run run = any only this run
-- columns: label, point, status (captured, not_applicable, filtered, unsupported, failed), reason, layers (how many), rows_expected, rows_captured, rows_with_tensor
SELECT label, point, status, reason, count(DISTINCT layer) AS layers,
       sum(rows_expected) AS rows_expected, sum(rows_captured) AS rows_captured, sum(rows_with_tensor) AS rows_with_tensor
FROM coverage
WHERE $run = '' OR run = $run
GROUP BY run, label, point, status, reason
ORDER BY label, run, min(ordinal), status, reason
