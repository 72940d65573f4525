-- question: Where do NaN and infinities come up first, in forward order?
-- parameter: run run = any only this run
-- parameter: limit integer = 20 rows to show
-- columns: label, step, layer, point, position, token_id, nan, pos_inf, neg_inf, count (elements of the row)
SELECT label, step, layer, point, position, token_id, nan, pos_inf, neg_inf, count
FROM activations
WHERE nan + pos_inf + neg_inf > 0 AND ($run = '' OR run = $run)
ORDER BY label, run, step, ordinal, occurrence, position
LIMIT $limit
