-- question: How do two runs' statistics compare, layer by layer, on equal positions and tokens only?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: statistic std|rms|absmax = std which statistic
-- columns: ordinal (forward order), layer, point, rows (on equal positions and tokens, inside experts of equal experts), reference, target, ratio (target / reference; NULL where a row is nonfinite on one side only), verdict (fine: 0.5 to 2; alarm: from 10 or to 0.1, or only one side zero or nonfinite; else watch)
-- empty: the two runs have no capture point in common on equal positions, tokens and row widths
WITH rows AS (
  SELECT run, ordinal, layer, coalesce(layer, -1) AS place, point, occurrence, position, prefix, width, mean, rms, absmax,
         CAST(nullif(count - nan - pos_inf - neg_inf, 0) AS DOUBLE) AS n, nan + pos_inf + neg_inf AS nonfinite
  FROM activations
), chosen AS (
  SELECT run, layer, position, prefix, fingerprint FROM activations WHERE point = 'moe_topk'
), alike AS (
  SELECT r.layer, r.position, r.prefix
  FROM chosen r
  JOIN chosen t ON r.prefix = t.prefix AND r.position = t.position AND r.layer = t.layer AND r.fingerprint = t.fingerprint
  WHERE r.run = $reference AND t.run = $target
), merged AS (
  SELECT r.ordinal, r.layer, r.point, count(*) AS rows, bool_and(r.nonfinite = t.nonfinite) AS same_nonfinite,
         sum(r.n * r.mean) / sum(r.n) AS r_mean, sum(t.n * t.mean) / sum(t.n) AS t_mean,
         sum(r.n * r.rms * r.rms) / sum(r.n) AS r_square, sum(t.n * t.rms * t.rms) / sum(t.n) AS t_square,
         max(r.absmax) AS r_absmax, max(t.absmax) AS t_absmax
  FROM rows r
  JOIN rows t
    ON r.prefix = t.prefix AND r.position = t.position AND r.point = t.point AND r.place = t.place
   AND r.occurrence = t.occurrence AND r.width = t.width
  -- a slot is of some expert: two runs have it in common where they chose the same ones
  LEFT JOIN alike a ON r.prefix = a.prefix AND r.position = a.position AND r.place = a.layer
  WHERE r.run = $reference AND t.run = $target AND r.point <> 'moe_topk'
    AND (r.point NOT IN ('moe_weights', 'moe_gate', 'moe_up', 'moe_act', 'moe_glu', 'moe_down') OR a.layer IS NOT NULL)
  GROUP BY r.ordinal, r.layer, r.point
), variances AS (
  -- this form loses the digits by which the mean's square exceeds the variance; f64 has 16
  SELECT *, r_square - r_mean * r_mean AS r_variance, t_square - t_mean * t_mean AS t_variance FROM merged
), statistics AS (
  SELECT ordinal, layer, point, rows, same_nonfinite,
         CASE $statistic WHEN 'std' THEN CASE WHEN r_variance < 0.0 THEN 0.0 ELSE sqrt(r_variance) END
                         WHEN 'rms' THEN sqrt(r_square) ELSE r_absmax END AS reference,
         CASE $statistic WHEN 'std' THEN CASE WHEN t_variance < 0.0 THEN 0.0 ELSE sqrt(t_variance) END
                         WHEN 'rms' THEN sqrt(t_square) ELSE t_absmax END AS target
  FROM variances
), divided AS (
  SELECT *, CASE WHEN same_nonfinite THEN target / nullif(reference, 0.0) END AS ratio FROM statistics
)
SELECT ordinal, layer, point, rows, reference, target, ratio,
       CASE WHEN NOT same_nonfinite THEN 'alarm'
            WHEN reference IS NOT DISTINCT FROM target THEN 'fine'
            WHEN ratio IS NULL OR ratio >= 10.0 OR ratio <= 0.1 THEN 'alarm'
            WHEN ratio BETWEEN 0.5 AND 2.0 THEN 'fine'
            ELSE 'watch' END AS verdict
FROM divided
ORDER BY ordinal
