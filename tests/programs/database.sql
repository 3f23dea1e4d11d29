-- Tables, indexes, joins, windows, text search by pattern, JSON, and a roll-back, all in memory.
PRAGMA cache_size = 2000;
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, note BLOB);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 60013), i * 31 % 997, zeroblob(i % 50) FROM n;
COMMIT;
CREATE INDEX item_name ON item (name);
CREATE INDEX item_price ON item (price, id);
CREATE TABLE sale (item INTEGER REFERENCES item, day INTEGER, amount REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80000)
INSERT INTO sale SELECT 1 + i * 104729 % 60000, i % 365, i % 17 * 1.5 FROM n;
SELECT count(*), sum(price), sum(length(note)) FROM item;
SELECT name, price FROM item WHERE name LIKE 'item 123%' ORDER BY price DESC, name LIMIT 5;
SELECT day / 30 AS month, round(sum(amount * price)), count(DISTINCT item)
FROM sale JOIN item ON item.id = sale.item GROUP BY month ORDER BY month;
SELECT day, total, sum(total) OVER (ORDER BY day) FROM (SELECT day, sum(amount) AS total FROM sale GROUP BY day) LIMIT 5;
SELECT length(group_concat(name, ';')) FROM item WHERE price < 500;
SELECT json_array_length(json_group_array(json_object('id', id, 'name', name))) FROM item WHERE id % 3 = 0;
BEGIN;
UPDATE item SET name = name || ' new', note = zeroblob(200) WHERE id % 2 = 0;
DELETE FROM sale WHERE day < 100;
SELECT count(*), sum(length(name)), sum(length(note)) FROM item;
ROLLBACK;
SELECT count(*), sum(length(name)), sum(length(note)) FROM item;
VACUUM;
PRAGMA integrity_check;
