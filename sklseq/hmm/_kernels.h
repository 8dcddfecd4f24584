/* All that is compiled once per instruction set (see _dispatch.h). */
#include "_vector.h"
#include "_lanes.h"
#include "_rows.h"
#undef JOIN_
#undef JOIN
#undef FN
#undef vec
#undef loose
#undef bits
#undef mask
