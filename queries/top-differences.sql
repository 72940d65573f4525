-- question: q
-- columns: one
SELECT 1 AS one
