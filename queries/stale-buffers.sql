-- question: Which points hold the same rows in two layers, as a buffer does that was not written?
-- parameter: run run = any only this run
-- parameter: limit integer = 20 rows to show
-- columns: label, point, layer, same_as (layer), rows (that are equal, rows of zeros apart), of (rows of the point in the layer)
WITH rows AS (
  SELECT run, label, ordinal, layer, point, occurrence, position, fingerprint, width, zero < count AS filled
  FROM activations
  WHERE layer IS NOT NULL AND ($run = '' OR run = $run)
), pairs AS (
  SELECT b.run, b.label, b.ordinal, b.point, b.layer, a.layer AS same_as, count(*) AS rows
  FROM rows a
  JOIN rows b
    ON a.run = b.run AND a.point = b.point AND a.occurrence = b.occurrence AND a.position = b.position
   AND a.fingerprint = b.fingerprint AND a.width = b.width
  WHERE a.layer < b.layer AND b.filled AND b.point <> 'moe_topk'
    -- one key alone has the whole probability, in every layer
    AND NOT (b.point = 'attn_probs' AND b.position = 0)
  GROUP BY b.run, b.label, b.ordinal, b.point, b.layer, a.layer
), places AS (
  SELECT run, ordinal, count(*) AS of FROM rows GROUP BY run, ordinal
)
SELECT p.label, p.point, p.layer, p.same_as, p.rows, q.of
FROM pairs p
JOIN places q ON p.run = q.run AND p.ordinal = q.ordinal
ORDER BY p.rows DESC, p.label, p.run, p.ordinal, p.same_as
LIMIT $limit
