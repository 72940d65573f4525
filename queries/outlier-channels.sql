-- question: Which channels of a point are far above the others, layer by layer?
-- parameter: run run = any only this run
-- parameter: point point = resid_post where
-- parameter: above number = 10 factor to the middle channel from which a channel is shown; the largest of each layer is shown in any case
-- parameter: limit integer = 200 rows to show
-- columns: label, layer, rows (whose values were kept), of (rows captured), channel (index in the row), absmax (its largest finite absolute value), median (of all channels' absmax), to_median (absmax / median), outlier (to_median is above), layers (of this run in which the channel is an outlier)
-- empty: the point was not captured, or is one whose rows are of other experts from token to token (moe_topk, moe_weights, moe_gate, moe_up, moe_act, moe_glu, moe_down)
WITH places AS (
  SELECT run, label, layer, min(ordinal) AS ordinal, count(*) AS of
  FROM activations
  WHERE point = $point AND ($run = '' OR run = $run)
    AND point NOT IN ('moe_topk', 'moe_weights', 'moe_gate', 'moe_up', 'moe_act', 'moe_glu', 'moe_down')
  GROUP BY run, label, layer
), channels AS (
  SELECT run, coalesce(layer, -1) AS place, index AS channel, count(*) AS rows,
         max(abs(value)) FILTER (WHERE abs(value) < 'Infinity') AS absmax
  FROM elements
  WHERE point = $point AND ($run = '' OR run = $run)
  GROUP BY run, layer, index
), middle AS (
  SELECT run, place, max(rows) AS rows, median(absmax) AS median FROM channels GROUP BY run, place
), ranked AS (
  SELECT c.run, c.place, m.rows, c.channel, c.absmax, m.median, c.absmax / nullif(m.median, 0.0) AS to_median,
         row_number() OVER (PARTITION BY c.run, c.place ORDER BY c.absmax DESC NULLS LAST, c.channel) AS rank
  FROM channels c JOIN middle m ON c.run = m.run AND c.place = m.place
), marked AS (
  SELECT *, coalesce(to_median >= $above, false) AS outlier FROM ranked
), shown AS (
  SELECT *, count(*) FILTER (WHERE outlier) OVER (PARTITION BY run, channel) AS layers FROM marked
)
SELECT p.label, p.layer, coalesce(s.rows, 0) AS rows, p.of, channel, absmax, median, to_median, outlier, layers
FROM places p LEFT JOIN (SELECT * FROM shown WHERE outlier OR rank = 1) s ON s.run = p.run AND s.place = coalesce(p.layer, -1)
ORDER BY p.label, p.run, p.ordinal, absmax DESC NULLS LAST, channel
LIMIT $limit
