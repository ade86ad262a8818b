-- One row for each professor: who teaches what, who helps, and what students say.
SELECT p.id AS professor_id,
       p.name AS professor,
       p.profile AS profile,
       c.description AS course,
       t.description AS tutor,
       r.text AS review
FROM professors AS p
JOIN courses AS c ON c.professor_id = p.id
JOIN tutors AS t ON t.professor_id = p.id
JOIN reviews AS r ON r.professor_id = p.id
ORDER BY p.id
