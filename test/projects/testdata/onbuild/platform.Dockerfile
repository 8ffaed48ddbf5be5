FROM busybox
WORKDIR /app
ONBUILD ARG MODE=yes
ONBUILD ENV TRIGGERED=$MODE
ONBUILD COPY app /app
ONBUILD RUN ls /app | wc -l > /count
CMD echo "app of $(cat /count) files, TRIGGERED=$TRIGGERED"
