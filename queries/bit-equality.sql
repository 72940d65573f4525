-- question: Are two runs bit-equal, by the fingerprints of their token rows, and where do they first differ?
-- parameter: reference run = first the first run
-- parameter: target run = second the second run
-- columns: ordinal (forward order), layer, point, of (rows of the reference), rows (of them that the target has too, on equal positions and tokens, inside experts of equal experts), equal (rows), different (rows), first_different (position)
-- empty: the two runs have no capture point in common on equal token prefixes
WITH chosen AS (
  SELECT run, layer, position, prefix, fingerprint FROM activations WHERE point = 'moe_topk'
), alike AS (
  SELECT r.layer, r.position, r.prefix
  FROM chosen r
  JOIN chosen t ON r.prefix = t.prefix AND r.position = t.position AND r.layer = t.layer AND r.fingerprint = t.fingerprint
  WHERE r.run = $reference AND t.run = $target
), target AS (
  SELECT t.point, coalesce(t.layer, -1) AS place, t.occurrence, t.position, t.prefix, t.fingerprint, t.dtype, t.width
  FROM activations t
  -- a slot is of some expert: two runs have it in common where they chose the same ones
  LEFT JOIN alike a ON t.prefix = a.prefix AND t.position = a.position AND t.layer = a.layer
  WHERE t.run = $target
    AND (t.point NOT IN ('moe_weights', 'moe_gate', 'moe_up', 'moe_act', 'moe_glu', 'moe_down') OR a.layer IS NOT NULL)
), pairs AS (
  SELECT r.ordinal, r.layer, r.point, r.position,
         r.fingerprint = t.fingerprint AND r.dtype = t.dtype AND r.width = t.width AS equal
  FROM (SELECT *, coalesce(layer, -1) AS place FROM activations WHERE run = $reference) r
  LEFT JOIN target t
    ON r.prefix = t.prefix AND r.position = t.position AND r.point = t.point AND r.place = t.place
   AND r.occurrence = t.occurrence
), counted AS (
  SELECT ordinal, layer, point, count(*) AS of, count(equal) AS rows, count(*) FILTER (WHERE equal) AS equal,
         count(*) FILTER (WHERE NOT equal) AS different, min(CASE WHEN NOT equal THEN position END) AS first_different,
         sum(count(equal)) OVER () AS common
  FROM pairs
  GROUP BY ordinal, layer, point
)
SELECT ordinal, layer, point, of, rows, equal, different, first_different
FROM counted
WHERE common > 0
ORDER BY ordinal
