-- question: How do two runs' statistics compare, layer by layer, on equal positions and tokens only?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: statistic std|rms|absmax = std which statistic
-- columns: ordinal (forward order), layer, point, of (rows of the reference), rows (of them that the target has too, on equal positions and tokens, inside experts of equal experts), reference, target, ratio (target / reference; NULL where a row is nonfinite on one side only, or in different ways), verdict (fine: 0.5 to 2; alarm: from 10 or to 0.1, or only one side zero or nonfinite, or nonfinite in different ways; else watch; NULL where neither side has a value)
-- empty: the two runs have no capture point in common on equal positions, tokens and row widths
WITH rows AS (
  SELECT run, ordinal, layer, coalesce(layer, -1) AS place, point, occurrence, position, prefix, width, mean, std, rms, absmax,
         CAST(nullif(count - nan - pos_inf - neg_inf, 0) AS DOUBLE) AS n, nan, pos_inf, neg_inf
  FROM activations
  WHERE point <> 'moe_topk'
), chosen AS (
  SELECT run, layer, position, prefix, fingerprint FROM activations WHERE point = 'moe_topk'
), alike AS (
  SELECT r.layer, r.position, r.prefix
  FROM chosen r
  JOIN chosen t ON r.prefix = t.prefix AND r.position = t.position AND r.layer = t.layer AND r.fingerprint = t.fingerprint
  WHERE r.run = $reference AND t.run = $target
), target AS (
  SELECT t.*
  FROM rows t
  -- a slot is of some expert: two runs have it in common where they chose the same ones
  LEFT JOIN alike a ON t.prefix = a.prefix AND t.position = a.position AND t.place = a.layer
  WHERE t.run = $target
    AND (t.point NOT IN ('moe_weights', 'moe_gate', 'moe_up', 'moe_act', 'moe_glu', 'moe_down') OR a.layer IS NOT NULL)
), pairs AS (
  SELECT r.ordinal, r.layer, r.point, t.point IS NOT NULL AS common,
         r.nan = t.nan AND r.pos_inf = t.pos_inf AND r.neg_inf = t.neg_inf AS same_nonfinite,
         -- what the target lacks counts on neither side
         CASE WHEN t.point IS NOT NULL THEN r.n END AS r_n, r.mean AS r_mean, r.std AS r_std, r.rms AS r_rms,
         CASE WHEN t.point IS NOT NULL THEN r.absmax END AS r_absmax,
         t.n AS t_n, t.mean AS t_mean, t.std AS t_std, t.rms AS t_rms, t.absmax AS t_absmax
  FROM (SELECT * FROM rows WHERE run = $reference) r
  LEFT JOIN target t
    ON r.prefix = t.prefix AND r.position = t.position AND r.point = t.point AND r.place = t.place
   AND r.occurrence = t.occurrence AND r.width = t.width
), centred AS (
  SELECT *, sum(r_n * r_mean) OVER whole / sum(r_n) OVER whole AS r_middle,
         sum(t_n * t_mean) OVER whole / sum(t_n) OVER whole AS t_middle
  FROM pairs
  -- an ordinal is of one layer and point
  WINDOW whole AS (PARTITION BY ordinal)
), merged AS (
  SELECT ordinal, layer, point, count(*) AS of, count(*) FILTER (WHERE common) AS rows,
         bool_and(same_nonfinite) AS same_nonfinite,
         -- squared distances from the mean of all, of each row's values
         sum(r_n * (r_std * r_std + power(r_mean - r_middle, 2))) / sum(r_n) AS r_variance,
         sum(t_n * (t_std * t_std + power(t_mean - t_middle, 2))) / sum(t_n) AS t_variance,
         sum(r_n * r_rms * r_rms) / sum(r_n) AS r_square, sum(t_n * t_rms * t_rms) / sum(t_n) AS t_square,
         max(r_absmax) AS r_absmax, max(t_absmax) AS t_absmax
  FROM centred
  GROUP BY ordinal, layer, point
), statistics AS (
  SELECT ordinal, layer, point, of, rows, sum(rows) OVER () AS common, same_nonfinite,
         CASE $statistic WHEN 'std' THEN sqrt(r_variance) WHEN 'rms' THEN sqrt(r_square) ELSE r_absmax END AS reference,
         CASE $statistic WHEN 'std' THEN sqrt(t_variance) WHEN 'rms' THEN sqrt(t_square) ELSE t_absmax END AS target
  FROM merged
), divided AS (
  SELECT *, CASE WHEN same_nonfinite THEN target / nullif(reference, 0.0) END AS ratio FROM statistics
)
SELECT ordinal, layer, point, of, rows, reference, target, ratio,
       CASE WHEN NOT same_nonfinite THEN 'alarm'
            WHEN reference IS NULL AND target IS NULL THEN NULL
            WHEN reference IS NOT DISTINCT FROM target THEN 'fine'
            WHEN ratio IS NULL OR ratio >= 10.0 OR ratio <= 0.1 THEN 'alarm'
            WHEN ratio BETWEEN 0.5 AND 2.0 THEN 'fine'
            ELSE 'watch' END AS verdict
FROM divided
WHERE common > 0
ORDER BY ordinal
