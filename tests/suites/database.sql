CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, size REAL, body BLOB);
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < @COUNT@)
INSERT INTO item SELECT n, printf('name %d %s', n * 7919 % 100003, substr('abcdefghijklmnopqrstuvwxyz', 1, n % 26)),
    n * 1.5, zeroblob(n % 300) FROM number;
CREATE INDEX by_name ON item(name);
CREATE INDEX by_size ON item(size DESC, name);
SELECT count(*), sum(length(name)), min(name), max(name) FROM item;
SELECT name FROM item ORDER BY substr(name, -3), name LIMIT 20 OFFSET 1000;
SELECT id % 10, count(*), avg(size), group_concat(id, '-') FROM item WHERE id < 500 GROUP BY 1 ORDER BY 1;
SELECT sum(row), max(total) FROM (SELECT row_number() OVER (PARTITION BY id % 97 ORDER BY name) row,
    sum(size) OVER (ORDER BY id ROWS 50 PRECEDING) total FROM item);
CREATE TABLE document AS SELECT id, json_object('id', id, 'name', name, 'list', json_array(id, size, id % 3)) AS text FROM item;
SELECT count(*), sum(json_extract(text, '$.list[2]')) FROM document;
UPDATE item SET name = name || ' again', body = randomblob(0) WHERE id % 3 = 0;
DELETE FROM item WHERE id % 7 = 0;
SELECT count(*) FROM item a JOIN item b ON b.id = a.id + 1 AND b.name > a.name;
VACUUM;
REINDEX;
ANALYZE;
SELECT count(*), sum(id) FROM (SELECT id FROM item EXCEPT SELECT id FROM document WHERE id % 2);
PRAGMA integrity_check;
