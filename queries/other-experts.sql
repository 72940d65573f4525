-- question: For which tokens did two runs choose other experts?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: limit integer = 200 rows to show; those of other experts come first
-- columns: layer, of (tokens of the layer, on equal positions and tokens), others (of them with other experts), position, token_id, same (by the bits of the set), reference (experts, ascending; NULL where the values were not kept), target, only_reference (experts), only_target
-- empty: the two runs have no choice of experts (moe_topk) in common on equal positions and tokens
WITH chosen AS (
  SELECT run, ordinal, layer, position, token_id, prefix, fingerprint, arrow_cast(data, 'List(Int64)') AS experts
  FROM activations
  WHERE point = 'moe_topk'
), pairs AS (
  SELECT r.ordinal, r.layer, r.position, r.token_id, r.fingerprint = t.fingerprint AS same,
         r.experts AS reference, t.experts AS target
  FROM chosen r
  JOIN chosen t ON r.prefix = t.prefix AND r.position = t.position AND r.layer = t.layer
  WHERE r.run = $reference AND t.run = $target
)
SELECT layer, count(*) OVER (PARTITION BY layer) AS of, count(*) FILTER (WHERE NOT same) OVER (PARTITION BY layer) AS others,
       position, token_id, same, reference, target,
       array_except(reference, target) AS only_reference, array_except(target, reference) AS only_target
FROM pairs
ORDER BY same, ordinal, position
LIMIT $limit
