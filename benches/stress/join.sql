select count(*), sum(a + b), sum(x + y), max(s), max(t) from wide_left, wide_right where wide_left.k = wide_right.k
