-- One row for each professor: who teaches what, both courses, and what students say.
SELECT p.id AS professor_id,
       p.name AS professor,
       p.profile AS profile,
       a.description AS first_course,
       b.description AS second_course,
       r.text AS review
FROM professors AS p
JOIN courses AS a ON a.professor_id = p.id AND a.position = 1
JOIN courses AS b ON b.professor_id = p.id AND b.position = 2
JOIN reviews AS r ON r.professor_id = p.id
ORDER BY p.id
