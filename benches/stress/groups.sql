select count(*), sum(n), sum(total), max(greatest) from (select k, count(*) as n, sum(v) as total, max(v) as greatest from groups group by k)
