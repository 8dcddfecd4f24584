/* What is compiled once per instruction set (see _dispatch.h). */
#include "_vector.h"
#include KERNELS
#undef JOIN_
#undef JOIN
#undef FN
#undef vec
#undef loose
#undef bits
#undef mask
