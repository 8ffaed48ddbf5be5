#include <stdio.h>
#include <string.h>
#include <zlib.h>

int main(int argc, char **argv) {
	if (argc != 2) return 2;
	printf("crc of %s is %lx\n", argv[1], crc32(0, (const Bytef *)argv[1], strlen(argv[1])));
	return 0;
}
