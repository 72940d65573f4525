-- question: Are two runs bit-equal, by the fingerprints of their token rows, and where do they first differ?
-- parameter: reference run = first the first run
-- parameter: target run = second the second run
-- columns: ordinal (forward order), layer, point, rows (on equal positions and tokens, inside experts of equal experts), equal (rows), different (rows), first_different (position)
-- empty: the two runs have no capture point in common on equal token prefixes
WITH chosen AS (
  SELECT run, layer, position, prefix, fingerprint FROM activations WHERE point = 'moe_topk'
), alike AS (
  SELECT r.layer, r.position, r.prefix
  FROM chosen r
  JOIN chosen t ON r.prefix = t.prefix AND r.position = t.position AND r.layer = t.layer AND r.fingerprint = t.fingerprint
  WHERE r.run = $reference AND t.run = $target
), pairs AS (
  SELECT r.ordinal, r.layer, r.point, r.position,
         r.fingerprint = t.fingerprint AND r.dtype = t.dtype AND r.width = t.width AS equal
  FROM activations r
  JOIN activations t
    ON r.prefix = t.prefix AND r.position = t.position AND r.point = t.point
   AND coalesce(r.layer, -1) = coalesce(t.layer, -1) AND r.occurrence = t.occurrence
  -- a slot is of some expert: two runs have it in common where they chose the same ones
  LEFT JOIN alike a ON r.prefix = a.prefix AND r.position = a.position AND r.layer = a.layer
  WHERE r.run = $reference AND t.run = $target
    AND (r.point NOT IN ('moe_weights', 'moe_gate', 'moe_up', 'moe_act', 'moe_glu', 'moe_down') OR a.layer IS NOT NULL)
)
SELECT ordinal, layer, point, count(*) AS rows, count(*) FILTER (WHERE equal) AS equal,
       count(*) FILTER (WHERE NOT equal) AS different, min(CASE WHEN NOT equal THEN position END) AS first_different
FROM pairs
GROUP BY ordinal, layer, point
ORDER BY ordinal
