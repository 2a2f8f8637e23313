/* DO(0) to DO(n - 1), for kernels that serve 1 to 6 rows: a variable for each of their sums, which compilers keep in registers,
   as they do not with arrays. */

#ifndef PARKWAY_EACH_H
#define PARKWAY_EACH_H

#define EACH_1(DO) DO(0)
#define EACH_2(DO) EACH_1(DO) DO(1)
#define EACH_3(DO) EACH_2(DO) DO(2)
#define EACH_4(DO) EACH_3(DO) DO(3)
#define EACH_5(DO) EACH_4(DO) DO(4)
#define EACH_6(DO) EACH_5(DO) DO(5)

#endif
