-- question: Which experts did the router choose, layer by layer and token by token?
-- parameter: run run = any only this run
-- parameter: position integer = any only this position
-- parameter: limit integer = 200 rows to show
-- columns: label, layer, position, token_id, experts (their numbers, ascending; NULL where the values were not kept)
SELECT label, layer, position, token_id, arrow_cast(data, 'List(Int64)') AS experts
FROM activations
WHERE point = 'moe_topk' AND ($run = '' OR run = $run) AND ($position IS NULL OR position = $position)
ORDER BY label, run, position, ordinal
LIMIT $limit
