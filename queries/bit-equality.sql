-- question: Are two runs bit-equal, by the fingerprints of their token rows, and where do they first differ?
-- parameter: reference run = first the first run
-- parameter: target run = second the second run
-- columns: ordinal (forward order), layer, point, rows (on equal positions and tokens), equal (rows), different (rows), first_different (position)
-- empty: the two runs have no capture point in common on equal token prefixes
SELECT r.ordinal, r.layer, r.point, count(*) AS rows,
       count(*) FILTER (WHERE r.fingerprint = t.fingerprint AND r.dtype = t.dtype AND r.width = t.width) AS equal,
       count(*) FILTER (WHERE r.fingerprint <> t.fingerprint OR r.dtype <> t.dtype OR r.width <> t.width) AS different,
       min(CASE WHEN r.fingerprint <> t.fingerprint OR r.dtype <> t.dtype OR r.width <> t.width THEN r.position END) AS first_different
FROM activations r
JOIN activations t
  ON r.prefix = t.prefix AND r.position = t.position AND r.point = t.point
 AND coalesce(r.layer, -1) = coalesce(t.layer, -1) AND r.occurrence = t.occurrence
WHERE r.run = $reference AND t.run = $target
GROUP BY r.ordinal, r.layer, r.point
ORDER BY r.ordinal
